"""The indexer's scores by DeepGEMM, and the choice of tokens by SGLang's top-k."""

from types import ModuleType

import torch

from predecode.custom_kernels.layouts import INDEXER_HEAD_DIM, PAGE_TOKENS
from tests.rivals.gemm_cases import as_torch
from tests.rivals.inputs import PlainCaches, StepInputs
from tests.rivals.kernel_case import KernelCase, distance
from tests.rivals.quantized_rows import noise
from tests.rivals.report import RivalError
from tests.rivals.timing import Call
from tests.rivals.torch_layer import to_fp8

SGLANG_TOPK = 2048
"""The only number that SGLang's kernel selects."""


def reference_logits(query: torch.Tensor, gates: torch.Tensor, caches: PlainCaches, step: StepInputs) -> torch.Tensor:
    """float32 [T, positions], -inf past a row's length: ``sum_h gate * relu(query . key * scale)``, row by row.

    ``query`` FP8 [T, heads, 128], ``gates`` float32 [T, heads].
    """
    rows = []
    for row, pages in enumerate(step.block_table.long()):
        keys = caches.keys[pages].flatten(0, 1).float() * caches.key_scales[pages].flatten()[:, None]
        rows.append(gates[row] @ (query[row].float() @ keys.T).relu())
    logits = torch.stack(rows)
    position = torch.arange(logits.shape[1], device=logits.device)
    return logits.masked_fill(position >= step.lengths[:, None], float("-inf"))


def query_and_gates(heads: int, step: StepInputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Seeded noise: FP8 [T, heads, 128] and float32 [T, heads]."""
    device = step.lengths.device
    query = to_fp8(noise(step.rows, heads, INDEXER_HEAD_DIM, seed=1, device=device))
    return query, noise(step.rows, heads, seed=2, device=device) * heads**-0.5


def fused_pages(caches: PlainCaches) -> torch.Tensor:
    """uint8 [P, 64, 1, 132]: of each page all keys, then all scales, in new memory."""
    parts = caches.keys.view(torch.uint8).flatten(1), caches.key_scales.contiguous().view(torch.uint8)
    return torch.cat(parts, 1).view(len(caches.keys), PAGE_TOKENS, 1, -1)


def logits_case(deep_gemm: ModuleType, caches: PlainCaches, step: StepInputs, heads: int) -> KernelCase:
    """``fp8_paged_mqa_logits``; its schedule is made once, as for all layers of a step."""
    query, gates = query_and_gates(heads, step)
    positions = step.block_table.shape[1] * PAGE_TOKENS
    inside = torch.arange(positions, device=query.device) < step.lengths[:, None]

    def prepare(number: int) -> Call:
        pages = fused_pages(caches)
        lengths = step.lengths[:, None].contiguous()
        schedule = as_torch(deep_gemm.get_paged_mqa_logits_metadata(lengths, PAGE_TOKENS, deep_gemm.get_num_sms()))
        return lambda: as_torch(
            deep_gemm.fp8_paged_mqa_logits(query[:, None], pages, gates, lengths, step.block_table, schedule, positions)
        )

    def deviation(number: int, result: torch.Tensor) -> float:
        return distance(result[inside], reference_logits(query, gates, caches, step)[inside])

    tokens = int(step.lengths.sum())
    cold = tokens * (INDEXER_HEAD_DIM + 4)
    return KernelCase(
        op="paged_mqa_logits",
        name="DeepGEMM fp8_paged_mqa_logits",
        rows=step.rows,
        bytes=cold + tokens * 4,
        cold_bytes=cold,
        ours=("paged_mqa_logits", ""),
        prepare=prepare,
        deviation=deviation,
        limit=1e-3,
    )


def topk_case(caches: PlainCaches, step: StepInputs, heads: int, topk: int) -> KernelCase:
    """``fast_topk_transform_fused`` on the scores that the reference gives; they were just written, so not cold."""
    if topk != SGLANG_TOPK:
        raise RivalError(f"SGLang's kernel selects {SGLANG_TOPK} tokens, this model {topk}")
    logits = reference_logits(*query_and_gates(heads, step), caches, step)
    slots = slots_of_positions(step)
    starts = torch.arange(step.rows + 1, dtype=torch.int32, device=logits.device)

    def prepare(number: int) -> Call:
        own, result = logits.clone(), torch.empty(step.rows, topk, dtype=torch.int32, device=logits.device)

        def call() -> torch.Tensor:
            torch.ops.sgl_kernel.fast_topk_transform_fused(own, step.lengths, result, slots, starts, None)
            return result

        return call

    return KernelCase(
        op="topk_slots",
        name="SGLang fast_topk_transform_fused",
        rows=step.rows,
        bytes=int(step.lengths.sum()) * 4 + step.rows * topk * 8,
        cold_bytes=0,
        ours=("topk_slots", ""),
        prepare=prepare,
        deviation=lambda number, result: selection_deviation(result, logits, slots, step.lengths),
        limit=1e-5,
        remark="the rival's order differs from run to run; ours is ascending",
    )


def slots_of_positions(step: StepInputs) -> torch.Tensor:
    """int32 [T, positions]: a block table of single tokens."""
    token = torch.arange(PAGE_TOKENS, dtype=torch.int32, device=step.block_table.device)
    return (step.block_table[..., None] * PAGE_TOKENS + token).flatten(1)


def selection_deviation(
    selected: torch.Tensor, logits: torch.Tensor, slots: torch.Tensor, lengths: torch.Tensor
) -> float:
    """How far the sum of the selected logits is from the best one, relative; infinite for a wrong set.

    ``selected`` int32 [T, topk] slots in any order, -1 for none; ``logits`` float32 and ``slots`` int32
    [T, positions]. A set is wrong if it has a slot twice, one of no position below the length, or too few.
    """
    worst = 0.0
    for row, length in enumerate(lengths.tolist()):
        chosen = selected[row][selected[row] >= 0]
        own = slots[row, :length]
        order = own.argsort()
        place = torch.searchsorted(own[order], chosen).clamp_max(length - 1)
        position = order[place]
        count = min(selected.shape[1], length)
        if len(chosen.unique()) != count or len(chosen) != count or (own[position] != chosen).any():
            return float("inf")
        best = logits[row, :length].topk(count).values.double()
        given = logits[row, position].double()
        worst = max(worst, ((given.sum() - best.sum()).abs() / best.abs().sum()).item())
    return worst
