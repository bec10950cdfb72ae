"""Three ways to multiply each row by its experts in plain torch: all take ``x`` bfloat16 [T, hidden], expert ids
[T, k] and their weights float32 [T, k], and return bfloat16 [T, hidden].
"""

import torch
from torch.nn import functional

from predecode.custom_kernels.layouts import GROUP
from tests.rivals.torch_weights import ExpertsWeights, Fp8Weight


def gathered(x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, experts: ExpertsWeights) -> torch.Tensor:
    """The FP8 experts of all pairs are gathered, dequantised and multiplied in one batch."""
    pairs = _repeat(x, ids)
    gate_up = torch.bmm(_gather(experts.gate_up, ids), pairs[..., None])[..., 0]
    down = torch.bmm(_gather(experts.down, ids), silu_mul(gate_up)[..., None])[..., 0]
    return _sum(down, weights)


def gathered_in_one_pass(
    x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, experts: ExpertsWeights
) -> torch.Tensor:
    """As `gathered`, written as products and sums, which a compiler makes one kernel of that stores no expert."""
    pairs = _repeat(x, ids)
    gate_up = (_gather(experts.gate_up, ids).float() * pairs[:, None].float()).sum(-1).bfloat16()
    down = (_gather(experts.down, ids).float() * silu_mul(gate_up)[:, None].float()).sum(-1)
    return _sum(down, weights)


def grouped(x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, experts: ExpertsWeights) -> torch.Tensor:
    """Rows sorted by expert, then torch's grouped product with experts that were dequantised beforehand."""
    flat = ids.flatten()
    sorted_ids, order = torch.sort(flat, stable=True)
    every = torch.arange(len(experts.gate_up), device=x.device, dtype=flat.dtype)
    ends = torch.searchsorted(sorted_ids, every, right=True).to(torch.int32)
    rows = x[order // ids.shape[1]]
    gate_up = torch._grouped_mm(rows, experts.gate_up.transpose(1, 2), offs=ends)
    down = torch._grouped_mm(silu_mul(gate_up), experts.down.transpose(1, 2), offs=ends)
    return _sum(torch.empty_like(down).index_copy(0, order, down), weights)


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up`` of [pairs, 2I], gate columns first."""
    gate, up = gate_up.chunk(2, -1)
    return functional.silu(gate.float()).mul(up.float()).to(gate_up.dtype)


def _repeat(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Each row once for each of its experts: [T * k, hidden]."""
    return x[:, None].expand(-1, ids.shape[1], -1).flatten(0, 1)


def _gather(weight: Fp8Weight, ids: torch.Tensor) -> torch.Tensor:
    """bfloat16 [T * k, N, K]."""
    chosen = ids.flatten()
    rows, columns = weight.values.shape[1:]
    blocks = weight.values[chosen].unflatten(1, (rows // GROUP, GROUP)).unflatten(3, (columns // GROUP, GROUP))
    return (blocks.bfloat16() * weight.scales[chosen][:, :, None, :, None].bfloat16()).reshape(-1, rows, columns)


def _sum(down: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Pairs [T * k, hidden], weighted and summed over the experts of each row."""
    return (down.float().unflatten(0, weights.shape) * weights[..., None]).sum(1).bfloat16()
