"""Where each parameter of a layer lies in the archive's entry for the whole layer.

A dispatch binds few buffers, so one that runs a whole layer is given the layer's parameters as one. The archive has
an entry over the bytes of each layer for that; nothing is stored twice.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_LAYER = re.compile(r"(layers\.\d+)\.")


@dataclass(frozen=True, slots=True)
class Span:
    """A parameter as ``length`` bytes at ``offset`` of the entry ``entry``, which has ``entry_length`` bytes."""

    entry: str
    offset: int
    length: int
    entry_length: int


def layer_spans(offsets: Mapping[str, int], lengths: Mapping[str, int]) -> dict[str, Span]:
    """Span of each layer's parameters; ``offsets`` and ``lengths`` are those of all parameters in an archive."""
    of_layer: dict[str, list[str]] = {}
    for name in offsets:
        layer = _LAYER.match(name)
        if layer:
            of_layer.setdefault(layer[1], []).append(name)
    spans = {}
    for entry, names in of_layer.items():
        begin = min(offsets[name] for name in names)
        end = max(offsets[name] + lengths[name] for name in names)
        inside = sum(begin <= offsets[name] < end for name in offsets)
        if inside != len(names):
            raise ValueError(f"the parameters of {entry} do not lie together")
        spans |= {name: Span(entry, offsets[name] - begin, lengths[name], end - begin) for name in names}
    return spans
