"""Tensor parallelism: which part of the model one rank holds.

Heads, MLP columns and vocabulary are split; the fused qkv_a projection, the whole indexer, the router, the
norms, the embedding and both caches are the same on every rank. Each rank's attention and MLP outputs are
partial sums.
"""

from dataclasses import dataclass

from predecode.custom_kernels.layouts import GROUP, TILE
from predecode.export.config import ModelConfig
from predecode.pipelines.errors import PredecodeError


@dataclass(frozen=True, slots=True)
class Shard:
    """Rank ``rank`` of ``tensor_parallel`` ranks."""

    tensor_parallel: int = 1
    rank: int = 0

    def __post_init__(self):
        if self.tensor_parallel < 1:
            raise PredecodeError(f"tensor parallel size {self.tensor_parallel}: expected 1 or more")
        if not 0 <= self.rank < self.tensor_parallel:
            raise PredecodeError(
                f"rank {self.rank}: expected 0 to {self.tensor_parallel - 1} of {self.tensor_parallel} ranks"
            )

    def part(self, total: int) -> slice:
        """This rank's equal part of ``total`` rows or columns; ``total`` divides by the number of ranks."""
        size = total // self.tensor_parallel
        return slice(self.rank * size, (self.rank + 1) * size)


SINGLE = Shard()


@dataclass(frozen=True, slots=True)
class ShardSizes:
    """Of one rank: attention ``heads``, columns of the dense and expert MLPs, rows of the output head."""

    heads: int
    intermediate: int
    moe_intermediate: int
    vocabulary: int


def shard_sizes(config: ModelConfig, shard: Shard) -> ShardSizes:
    """Per-rank sizes; `PredecodeError` where a split would cut a head, a tile or a 128 x 128 scale block."""
    ranks = shard.tensor_parallel

    def split(name: str, total: int, unit: int = 1) -> int:
        if total % ranks:
            raise PredecodeError(
                f"tensor parallel size {ranks} does not divide {name} = {total}; choose a size that does"
            )
        if total // ranks % unit:
            raise PredecodeError(
                f"tensor parallel size {ranks} gives each rank {total // ranks} of {name} = {total}, but "
                f"ranks hold multiples of {unit}; choose a smaller size"
            )
        return total // ranks

    heads = split("num_attention_heads", config.num_attention_heads)
    key_and_value = config.qk_nope_head_dim + config.v_head_dim
    split("num_attention_heads * qk_head_dim", config.num_attention_heads * config.qk_head_dim, TILE)
    if ranks > 1:
        # Scale blocks of these weights run along their rows: a rank must start at a block's first row.
        split("num_attention_heads * qk_head_dim", config.num_attention_heads * config.qk_head_dim, GROUP)
        split(
            "num_attention_heads * (qk_nope_head_dim + v_head_dim)",
            config.num_attention_heads * key_and_value,
            GROUP,
        )
    return ShardSizes(
        heads=heads,
        intermediate=split("intermediate_size", config.intermediate_size, GROUP),
        moe_intermediate=split("moe_intermediate_size", config.moe_intermediate_size, GROUP),
        vocabulary=split("vocab_size", config.vocab_size),
    )
