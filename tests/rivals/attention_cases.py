"""Attention over the selected tokens, by FlashMLA."""

import torch

from predecode.custom_kernels.layouts import PAGE_TOKENS
from tests.rivals.indexer_cases import slots_of_positions
from tests.rivals.inputs import PlainCaches, StepInputs
from tests.rivals.kernel_case import KernelCase, distance
from tests.rivals.quantized_rows import noise
from tests.rivals.report import RivalError
from tests.rivals.timing import Call
from tests.rivals.torch_layer import to_fp8

_HEADS = 64
"""FlashMLA takes 64 heads or 128: the rank's few are padded with zeros."""
_LATENT, _ROPE, _SCALE_GROUPS = 512, 64, 4


def flash_rows(latents: torch.Tensor) -> torch.Tensor:
    """float8 [P, 64, 1, 656] of ``latents`` float8 [P * 64, 576], in new memory.

    A token has 512 elements in FP8, the float32 scales of their quarters, and 64 rotated elements in bfloat16.
    """
    scales = torch.ones(len(latents), _SCALE_GROUPS, device=latents.device).view(torch.uint8)
    rope = latents[:, _LATENT:].bfloat16().view(torch.uint8)
    rows = torch.cat([latents[:, :_LATENT].view(torch.uint8), scales, rope], 1)
    return rows.view(-1, PAGE_TOKENS, 1, rows.shape[1]).view(latents.dtype)


def random_selection(step: StepInputs, topk: int) -> torch.Tensor:
    """Slots int32 [T, topk], seeded, each token of a row at most once and -1 where there are too few."""
    generator = torch.Generator().manual_seed(3)
    slots = slots_of_positions(step).cpu()
    selected = torch.full((step.rows, topk), -1, dtype=torch.int32)
    for row, length in enumerate(step.lengths.tolist()):
        chosen = torch.randperm(length, generator=generator)[:topk].sort().values
        selected[row, : len(chosen)] = slots[row, chosen]
    return selected.to(step.lengths.device)


def reference_attention(
    query: torch.Tensor, latents: torch.Tensor, selected: torch.Tensor, value_dim: int, scale: float
) -> torch.Tensor:
    """float32 [T, heads, value_dim] of ``query`` [T, heads, width], softmax over each row's ``selected`` slots."""
    rows = []
    for row in range(len(query)):
        keys = latents[selected[row][selected[row] >= 0].long()].float()
        rows.append((query[row].float() @ keys.T * scale).softmax(-1) @ keys[:, :value_dim])
    return torch.stack(rows)


def attention_case(
    caches: PlainCaches, step: StepInputs, heads: int, latent: int, topk: int, scale: float
) -> KernelCase:
    """``sparse_decode_fwd``; its schedule is made once, as for all layers of a step."""
    width = caches.latents.shape[1]
    if (latent, width) != (_LATENT, _LATENT + _ROPE) or heads > _HEADS:
        raise RivalError(f"FlashMLA takes {_LATENT} + {_ROPE} elements, this model has {latent} + {width - latent}")
    device = step.lengths.device
    query = torch.zeros(step.rows, 1, _HEADS, width, dtype=torch.bfloat16, device=device)
    query[:, 0, :heads] = to_fp8(noise(step.rows, heads, width, seed=4, device=device)).bfloat16()
    selected = random_selection(step, topk)
    schedule: list[torch.Tensor] = []

    def prepare(number: int) -> Call:
        rows = flash_rows(caches.latents)

        def call() -> torch.Tensor:
            given = schedule or (None, None)
            result, _, *made = torch.ops.sgl_kernel.sparse_decode_fwd(
                query, rows, selected[:, None], None, None, *given, None, None, None, _LATENT, scale
            )
            if not schedule:
                schedule.extend(made)
            return result

        return call

    def deviation(number: int, result: torch.Tensor) -> float:
        wanted = reference_attention(query[:, 0, :heads], caches.latents, selected, _LATENT, scale)
        return distance(result[:, 0, :heads], wanted)

    tokens = int((selected >= 0).sum())
    cold = tokens * (_LATENT + 4 * _SCALE_GROUPS + 2 * _ROPE)
    return KernelCase(
        op="sparse_mla",
        name="FlashMLA sparse_decode_fwd",
        rows=step.rows,
        bytes=cold + step.rows * heads * (width + _LATENT) * 2,
        cold_bytes=cold,
        ours=("sparse_mla", ""),
        prepare=prepare,
        deviation=deviation,
        limit=2e-2,
        remark=f"{heads} heads padded to {_HEADS}; ours leaves the parts to be combined by the next dispatch",
    )
