"""Scores of the lightning indexer, straight from the query before it is rotated and quantised.

Every workgroup makes the queries of the rows whose pages it scores, while its first pages are on their way. That takes
less time than to wait until another op has made them.
"""

from dataclasses import replace

import torch

from predecode.custom_kernels import indexer_q_prepare, paged_mqa_logits
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.prologue import Prologue, define_prologue, for_few_rows
from predecode.custom_kernels.targets import Target

MOST_ROWS = 64
"""Measured on an H200 up to as many."""
_NAME = "indexer_q_prepare_and_logits"
_PRODUCER_ARGUMENTS = ("q", "gates", "rope_table", "positions", "rope_layout", "element_format")


def reference(
    q: torch.Tensor,
    gates: torch.Tensor,
    rope_table: torch.Tensor,
    positions: torch.Tensor,
    rope_layout: str,
    element_format: str,
    cache: torch.Tensor,
    block_table: torch.Tensor,
    lengths: torch.Tensor,
    topk: int,
) -> torch.Tensor:
    query, weights = indexer_q_prepare.reference(q, gates, rope_table, positions, rope_layout, element_format)
    return paged_mqa_logits.reference(query, weights, cache, block_table, lengths, topk)


def _fake(q, gates, rope_table, positions, rope_layout, element_format, cache, block_table, lengths, topk):
    return paged_mqa_logits.OP.fake(q, gates, cache, block_table, lengths, topk)


def _launch(target: Target, call: Call) -> Launch | None:
    prepared = indexer_q_prepare.OP.launch_on(target, call)
    scored = paged_mqa_logits.launch_for_heads(target, call, call["gates"].shape[1])
    if prepared is None or scored is None:
        return None
    return replace(
        scored,
        source=scored.source.replace(scored.symbol, _NAME),
        symbol=_NAME,
        operands=(*prepared.operands, *paged_mqa_logits.PAGE_OPERANDS),
        constants=(prepared.constants[1], *scored.constants),  # of the former its gate factor only
        defines=(*scored.defines, *prepared.defines),
        reads_early=("rope_table", "positions", *scored.reads_early) if target.has_hip_kernels else (),
    )


def _touched(call: Call) -> dict[str, int]:
    return indexer_q_prepare.touched(call) | paged_mqa_logits.touched(call)


OP = define_op(
    f"{_NAME}(Tensor q, Tensor gates, Tensor rope_table, Tensor positions, str rope_layout, "
    "str element_format, Tensor cache, Tensor block_table, Tensor lengths, int topk) -> Tensor",
    reference,
    _fake,
    launch=_launch,
    touched=_touched,
)


define_prologue(
    Prologue(
        fused=OP,
        producer="indexer_q_prepare",
        consumer="paged_mqa_logits",
        through={"query": 0, "weights": 1},
        producer_names={name: name for name in _PRODUCER_ARGUMENTS},
        pays=for_few_rows("gates", MOST_ROWS),
    )
)
