"""Entry points: each segment is one module that is traced by itself."""

from collections.abc import Mapping

import torch
from torch import nn

from predecode.custom_kernels.all_reduce import all_reduce
from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.layouts import PRESHUFFLED_PAGE
from predecode.custom_kernels.values import IndexerCache, LatentCache
from predecode.export.config import ModelConfig
from predecode.export.model.final_norm import FinalNorm
from predecode.export.model.layer import Half, Layer
from predecode.export.model.parameters import FloatLinear, Weight, empty_parameter
from predecode.export.model.plan import Part, plan
from predecode.export.model.step_inputs import StepInputs
from predecode.export.model.tensor_spec import (
    Geometry,
    TensorSpec,
    indexer_cache_name,
    indexer_cache_spec,
    latent_cache_name,
    latent_cache_spec,
    mailboxes_spec,
    row_specs,
)
from predecode.export.shard import Shard, shard_sizes
from predecode.pipelines.errors import PredecodeError


class Segment(nn.Module):
    """A part of the decode step. Tensors come in the order of `arguments` and go in the order of `results`.

    Parameters carry the names of the whole model, whatever part of it this is.
    """

    def __init__(
        self,
        part: Part,
        config: ModelConfig,
        shard: Shard,
        element_format: ElementFormat,
        geometry: Geometry,
    ):
        super().__init__()
        self.part = part
        self.config = config
        self.element_format = element_format
        self.geometry = geometry
        self.shard = shard
        self.sizes = shard_sizes(config, shard)
        if part.embeds_tokens:
            self.embedding = Weight(config.vocab_size, config.hidden_size, element_format=element_format)
        if part.attention_layers:
            self.rope_table = empty_parameter(geometry.max_context, config.qk_rope_head_dim, dtype=torch.float32)
        self.layers = nn.ModuleDict(
            {
                str(layer): Layer(
                    config,
                    layer,
                    self.sizes,
                    element_format,
                    frozenset(half for other, half in part.halves if other == layer),
                )
                for layer in part.layers
            }
        )
        if part.gives_logits:
            self.final_norm = FinalNorm(config.hidden_size, config.rms_norm_eps, element_format)
            self.output = FloatLinear(self.sizes.vocabulary, config.hidden_size, element_format=element_format)

    @property
    def name(self) -> str:
        """Name of the entry point, without the row count."""
        return self.part.name

    def arguments(self, rows: int) -> tuple[TensorSpec, ...]:
        """What `forward` takes for ``rows`` rows."""
        specs = self._row_specs(rows, "input" if self.part.is_first else "state")
        return tuple(specs[name] for name in self._row_arguments()) + self._resident()

    def results(self, rows: int) -> tuple[TensorSpec, ...]:
        """What `forward` returns for ``rows`` rows; caches are written in place."""
        specs = self._row_specs(rows, "output" if self.part.is_last else "state")
        return tuple(specs[name] for name in self._row_results()) + tuple(
            TensorSpec(c.name, c.role, c.shape, c.dtype, c.layout, in_place=c.name) for c in self._caches()
        )

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        names = self._row_arguments() + [spec.name for spec in self._resident()]
        values = dict(zip(names, tensors, strict=True))
        if self.part.embeds_tokens:
            values["hidden"] = nn.functional.embedding(values["tokens"], self.embedding.weight)
        step = self._step_inputs(values)
        for index, half in self.part.halves:
            layer = self.layers[str(index)]
            if half is Half.ATTENTION:
                self._attend(index, layer, values, step)
            else:
                values["hidden"], values["residual"] = layer.transform(values["hidden"], values["residual"])
            if self.part.reduced_inside:
                turn = list(Half).index(half)  # halves alternate, so do turns
                values["hidden"] = all_reduce(values["hidden"], values["mailboxes"], self.shard.rank, turn)
        if self.part.gives_logits:
            values["logits"] = self.output(self.final_norm(values["hidden"], values["residual"]))
        if self.part.reduced_outside:
            values["hidden_partial"] = values["hidden"]
        return tuple(values[name] for name in self._row_results() + [c.name for c in self._caches()])

    def _attend(self, index: int, layer: Layer, values: dict[str, torch.Tensor], step: StepInputs) -> None:
        indexer_name, latent_name = indexer_cache_name(index), latent_cache_name(index)
        indexer_cache = IndexerCache(values[indexer_name], PRESHUFFLED_PAGE) if layer.indexer else None
        hidden, residual, selected, indexer_cache, latent_cache = layer.attend(
            values["hidden"],
            values.get("residual"),
            values.get("selected_slots"),
            indexer_cache,
            LatentCache(values[latent_name]),
            step,
        )
        values |= {"hidden": hidden, "residual": residual, "selected_slots": selected}
        values[latent_name] = latent_cache.data
        if indexer_cache is not None:
            values[indexer_name] = indexer_cache.data

    def _step_inputs(self, values: Mapping[str, torch.Tensor]) -> StepInputs | None:
        if not self.part.attention_layers:
            return None
        return StepInputs(
            self.rope_table,
            values["positions"],
            values["slot_mapping"],
            values.get("lengths"),
            values.get("block_table"),
        )

    def _row_arguments(self) -> list[str]:
        attention = self.part.attention_layers
        names = ["tokens"] if self.part.embeds_tokens else ["hidden"]
        if not self.part.starts_stream:
            names.append("residual")
        if attention:
            names += ["positions", "slot_mapping"]
        if any(self.config.has_indexer(layer) for layer in attention):
            names += ["lengths", "block_table"]
        if attention and not self.config.has_indexer(attention[0]):
            names.append("selected_slots")
        return names

    def _row_results(self) -> list[str]:
        if self.part.gives_logits:
            return ["logits"]
        names = ["hidden_partial" if self.part.reduced_outside else "hidden", "residual"]
        return [*names, "selected_slots"] if self.part.gives_selection else names

    def _row_specs(self, rows: int, state_role: str) -> dict[str, TensorSpec]:
        specs = row_specs(rows, self.config, self.geometry, self.element_format, self.sizes.vocabulary)
        return {
            name: TensorSpec(name, state_role if spec.role == "state" else spec.role, spec.shape, spec.dtype)
            for name, spec in specs.items()
        }

    def _resident(self) -> tuple[TensorSpec, ...]:
        mailboxes = (mailboxes_spec(self.shard.tensor_parallel),) if self.part.reduced_inside else ()
        return self._caches() + mailboxes

    def _caches(self) -> tuple[TensorSpec, ...]:
        caches = []
        for layer in self.part.attention_layers:
            if self.config.has_indexer(layer):
                caches.append(indexer_cache_spec(layer, self.geometry, self.element_format))
            caches.append(latent_cache_spec(layer, self.config, self.geometry, self.element_format))
        return tuple(caches)


def build_segments(
    config: ModelConfig,
    layers: tuple[int, ...] | None,
    shard: Shard,
    reduce: str,
    element_format: ElementFormat,
    geometry: Geometry,
) -> list[Segment]:
    """The segments of one rank in running order, parameters uninitialised.

    ``layers`` None is the whole step. ``reduce`` "none" and "peers" give one segment, "external" ends one wherever
    the ranks' ``hidden_partial`` must be summed to the next segment's ``hidden``.
    """
    if geometry.max_context > config.max_position_embeddings:
        raise PredecodeError(
            f"max context {geometry.max_context} is more than the model's {config.max_position_embeddings} positions"
        )
    return [Segment(part, config, shard, element_format, geometry) for part in plan(config, layers, reduce)]
