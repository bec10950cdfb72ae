"""What a dispatch moves of a buffer that it is bound to."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Touched:
    """At most ``bytes``; of an entry that holds a layer's parameters, so many of each in ``parts``.

    Parts are named as within the layer: dispatches of other layers share what is known of them.
    """

    bytes: int
    parts: Mapping[str, int] = field(default_factory=dict)
