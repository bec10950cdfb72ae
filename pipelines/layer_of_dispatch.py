"""Which layer of the model each dispatch of an entry point belongs to."""

import re

from predecode.pipelines.manifest import Audit, Dispatch

_LAYER = re.compile(r"layers\.(\d+)\.")
_OUTSIDE = frozenset({"embedding.weight", "final_norm.weight", "output.weight"})


def layers_of_dispatches(audit: Audit) -> tuple[int | None, ...]:
    """Layer number by dispatch, None for what is before the first layer or after the last.

    A dispatch belongs to the layer whose parameters or caches it is bound to, else to that of the newest result it
    reads.
    """
    layers: list[int | None] = []
    for dispatch in audit.dispatches:
        named = _named_layers(dispatch)
        if named:
            layers.append(max(named))
        elif any(binding.name in _OUTSIDE for binding in dispatch.bindings):
            layers.append(None)
        else:
            layers.append(layers[max(dispatch.after)] if dispatch.after else None)
    return tuple(layers)


def _named_layers(dispatch: Dispatch) -> set[int]:
    return {int(match[1]) for binding in dispatch.bindings if (match := _LAYER.match(binding.name))}
