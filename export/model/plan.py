"""How a step, or some of its layers, is cut into segments: at each point where the caller sums over ranks."""

from dataclasses import dataclass

from predecode.export.config import ModelConfig
from predecode.export.model.layer import Half
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.manifest import REDUCTIONS


@dataclass(frozen=True, slots=True)
class Part:
    """What one segment computes: halves of layers in order, with the token embedding or the output head."""

    name: str
    halves: tuple[tuple[int, Half], ...]
    embeds_tokens: bool
    starts_stream: bool
    """The residual does not exist yet where this part begins."""
    gives_logits: bool
    reduced_outside: bool
    """The hidden result is one rank's partial sum."""
    reduced_inside: bool
    """Ranks add up their partial sums after every half of a layer."""
    gives_selection: bool
    """A later part begins with a layer that reuses the selected slots."""
    is_first: bool
    is_last: bool

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers it touches, in order."""
        return tuple(dict.fromkeys(layer for layer, _ in self.halves))

    @property
    def attention_layers(self) -> tuple[int, ...]:
        """The layers whose attention half it holds."""
        return tuple(layer for layer, half in self.halves if half is Half.ATTENTION)


def plan(config: ModelConfig, layers: tuple[int, ...] | None, reduce: str) -> list[Part]:
    """Parts of the whole step (``layers`` None: tokens to logits) or of the given layers (hidden to hidden).

    ``reduce`` "none" and "peers" give a single part; "external" ends one after every half of a layer.
    """
    if reduce not in REDUCTIONS:
        raise PredecodeError(f"reduce {reduce!r}: expected {' or '.join(REDUCTIONS)}")
    whole = layers is None
    chosen = tuple(range(config.num_hidden_layers)) if whole else layers
    config.require_layers(chosen)
    halves = [(layer, half) for layer in chosen for half in (Half.ATTENTION, Half.MLP)]
    starts_stream = chosen[0] == 0
    if reduce != "external":
        return [
            Part(
                name="step" if whole else "layer_" + "_".join(str(layer) for layer in chosen),
                halves=tuple(halves),
                embeds_tokens=whole,
                starts_stream=starts_stream,
                gives_logits=whole,
                reduced_outside=False,
                reduced_inside=reduce == "peers",
                gives_selection=False,
                is_first=True,
                is_last=True,
            )
        ]
    parts = [
        Part(
            name=f"layer_{layer}_{half.value}",
            halves=((layer, half),),
            embeds_tokens=whole and i == 0,
            starts_stream=starts_stream and i == 0,
            gives_logits=False,
            reduced_outside=True,
            reduced_inside=False,
            gives_selection=half is Half.ATTENTION and config.has_indexer(layer) and _is_reused(config, chosen, layer),
            is_first=i == 0,
            is_last=not whole and i == len(halves) - 1,
        )
        for i, (layer, half) in enumerate(halves)
    ]
    if not whole:
        return parts
    output = Part(
        name="output",
        halves=(),
        embeds_tokens=False,
        starts_stream=False,
        gives_logits=True,
        reduced_outside=False,
        reduced_inside=False,
        gives_selection=False,
        is_first=False,
        is_last=True,
    )
    return [*parts, output]


def _is_reused(config: ModelConfig, chosen: tuple[int, ...], layer: int) -> bool:
    following = [other for other in chosen if other > layer]
    return bool(following) and not config.has_indexer(following[0])
