"""What the audit allows on a target although it moves data only, each with its reason."""

from predecode.custom_kernels.targets import Target
from predecode.pipelines.manifest import Exemption

_EVERY_TARGET = (
    Exemption("dispatch_0_elementwise_broadcast_*_i64x*", "the embedding of the step's tokens is a look-up"),
)
_OF_TARGET: dict[str, tuple[Exemption, ...]] = {}


def exemptions_of(target: Target) -> tuple[Exemption, ...]:
    """Patterns over dispatch names (or "copy", "fill") that are no fault on ``target``."""
    return (*_EVERY_TARGET, *_OF_TARGET.get(target.name, ()))
