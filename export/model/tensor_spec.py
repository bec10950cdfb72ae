"""What an entry point takes and returns, tensor by tensor."""

from dataclasses import dataclass

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.layouts import PAGE_TOKENS, PRESHUFFLED_PAGE
from predecode.export.config import ModelConfig
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.mailbox_table import table_shape

ROW_MAJOR_LAYOUT = "row-major"
LATENT_PAGE_LAYOUT = "latent page"
"""64 tokens one after another, each kv_lora_rank latent elements then the rotated key (see `LatentCache`)."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes that an entry point is compiled for: tokens a sequence may have, and pages in each cache."""

    max_context: int
    pages: int

    def __post_init__(self):
        if self.max_context < 1:
            raise PredecodeError(f"max context {self.max_context}: expected 1 or more")
        if self.pages < 1:
            raise PredecodeError(f"pages {self.pages}: expected 1 or more")

    @property
    def block_table_width(self) -> int:
        """Pages of the longest sequence."""
        return -(-self.max_context // PAGE_TOKENS)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One argument or result.

    ``role`` is "input" (the caller gives it), "cache" (kept on the device from step to step), "mailboxes" (kept there
    too: where ranks send each other partial sums), "state" (passed from one segment to the next) or "output".
    ``in_place`` names the argument whose buffer a result reuses.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: str = ROW_MAJOR_LAYOUT
    in_place: str | None = None


def indexer_cache_name(layer: int) -> str:
    """Name of ``layer``'s indexer cache."""
    return f"layers.{layer}.indexer_cache"


def latent_cache_name(layer: int) -> str:
    """Name of ``layer``'s MLA cache."""
    return f"layers.{layer}.latent_cache"


def indexer_cache_spec(layer: int, geometry: Geometry, element_format: ElementFormat) -> TensorSpec:
    """int8 [pages, page bytes], each page preshuffled."""
    shape = (geometry.pages, PRESHUFFLED_PAGE.page_bytes(element_format.itemsize))
    return TensorSpec(indexer_cache_name(layer), "cache", shape, torch.int8, PRESHUFFLED_PAGE.name)


def latent_cache_spec(layer: int, config: ModelConfig, geometry: Geometry, element_format: ElementFormat) -> TensorSpec:
    """int8 [pages, 64 * (kv_lora_rank + rope dim) * itemsize]."""
    shape = (geometry.pages, PAGE_TOKENS * config.latent_dim * element_format.itemsize)
    return TensorSpec(latent_cache_name(layer), "cache", shape, torch.int8, LATENT_PAGE_LAYOUT)


def mailboxes_spec(ranks: int) -> TensorSpec:
    """Where ``ranks`` ranks send each other partial sums (see `all_reduce`)."""
    return TensorSpec("mailboxes", "mailboxes", table_shape(ranks), torch.int64)


def row_specs(
    rows: int, config: ModelConfig, geometry: Geometry, element_format: ElementFormat, vocabulary: int
) -> dict[str, TensorSpec]:
    """Every tensor with one entry per row, by name, with the role it has for the caller of a whole step."""
    width, activation = geometry.block_table_width, element_format.activation_dtype
    hidden = (rows, config.hidden_size)
    specs = (
        TensorSpec("tokens", "input", (rows,), torch.int64),
        TensorSpec("positions", "input", (rows,), torch.int64),
        TensorSpec("lengths", "input", (rows,), torch.int32),
        TensorSpec("slot_mapping", "input", (rows,), torch.int64),
        TensorSpec("block_table", "input", (rows, width), torch.int32),
        TensorSpec("hidden", "state", hidden, activation),
        TensorSpec("hidden_partial", "state", hidden, activation),
        TensorSpec("residual", "state", hidden, activation),
        TensorSpec("selected_slots", "state", (rows, config.index_topk), torch.int32),
        TensorSpec("logits", "output", (rows, vocabulary), torch.float32),
    )
    return {spec.name: spec for spec in specs}
