"""DeepGEMM's block-scaled products, for the dense matrices and for the experts."""

from collections.abc import Iterator, Sequence
from types import ModuleType

import torch

from predecode.custom_kernels.quantize import dequantize_blocks
from tests.rivals.kernel_case import KernelCase, distance
from tests.rivals.quantized_rows import QuantizedRows, quantized_rows
from tests.rivals.timing import Call
from tests.rivals.torch_weights import Fp8Weight, LayerWeights

DENSE = ("attention.qkv_a", "attention.q_b", "indexer.wq_b", "attention.o_proj")
EXPERTS = {"gate_up": "moe_gate_up", "down": "moe_down"}
_LIMIT = 5e-3
_PADDED_ROWS = 128
"""Rows kept for each expert: a multiple of any tile, as stores of a part of a tile would reach the next expert."""


def dense_cases(deep_gemm: ModuleType, layers: Sequence[LayerWeights], rows: int) -> Iterator[KernelCase]:
    """``fp8_gemm_nt`` for the four dense matrices."""
    for name in DENSE:
        part, _, field = name.partition(".")
        weights = [getattr(getattr(layer, part), field) for layer in layers]
        if isinstance(weights[0], Fp8Weight):
            yield _dense_case(deep_gemm, name, weights, rows)


def _dense_case(deep_gemm: ModuleType, name: str, weights: Sequence[Fp8Weight], rows: int) -> KernelCase:
    outputs, columns = weights[0].values.shape
    device = weights[0].values.device
    x = quantized_rows(rows, columns, seed=rows, device=device)

    def prepare(number: int) -> Call:
        weight = own_memory(weights, number)
        scales = as_torch(deep_gemm.get_mn_major_tma_aligned_tensor(x.scales))
        result = torch.empty(rows, outputs, dtype=torch.bfloat16, device=device)

        def call() -> torch.Tensor:
            deep_gemm.fp8_gemm_nt((x.values, scales), (weight.values, weight.scales), result, compiled_dims="nk")
            return result

        return call

    def deviation(number: int, result: torch.Tensor) -> float:
        weight = weights[number % len(weights)]
        return distance(result, x.dequantized() @ dequantize_blocks(*weight).T)

    cold = weights[0].values.nbytes + weights[0].scales.nbytes
    return KernelCase(
        op=f"{name} {columns} to {outputs}",
        name="DeepGEMM fp8_gemm_nt",
        rows=rows,
        bytes=cold + x.values.nbytes + x.scales.nbytes + rows * outputs * 2,
        cold_bytes=cold,
        ours=("gemm_fp8_blockscale", name),
        prepare=prepare,
        deviation=deviation,
        limit=_LIMIT,
    )


def expert_cases(
    deep_gemm: ModuleType, layers: Sequence[LayerWeights], rows: int, experts_per_row: int, shared: int
) -> Iterator[KernelCase]:
    """The masked grouped product for both matrices of the experts, without the moves that it needs around it."""
    experts = len(layers[0].experts.gate_up.values)
    counts = even_routing(rows, experts, experts_per_row, shared)
    for field, op in EXPERTS.items():
        weights = [getattr(layer.experts, field) for layer in layers]
        yield _expert_case(deep_gemm, op, f"mlp.experts.{field}", weights, rows, counts)


def _expert_case(
    deep_gemm: ModuleType, op: str, name: str, weights: Sequence[Fp8Weight], rows: int, counts: torch.Tensor
) -> KernelCase:
    experts, outputs, columns = weights[0].values.shape
    device = weights[0].values.device
    padded = -(-rows // _PADDED_ROWS) * _PADDED_ROWS
    # The same rows for every expert: how they got there is not part of the product.
    one = quantized_rows(padded, columns, seed=rows, device=device)
    x = QuantizedRows(*(tensor.expand(experts, *tensor.shape).contiguous() for tensor in one))
    masked = counts.to(device=device, dtype=torch.int32)
    expected = -(-int(counts.sum()) // experts)

    def prepare(number: int) -> Call:
        weight = own_memory(weights, number)
        result = torch.empty(experts, padded, outputs, dtype=torch.bfloat16, device=device)
        scales = as_torch(deep_gemm.get_mn_major_tma_aligned_tensor(x.scales))

        def call() -> torch.Tensor:
            deep_gemm.fp8_m_grouped_gemm_nt_masked(
                (x.values, scales), (weight.values, weight.scales), result, masked, expected
            )
            return result

        return call

    def deviation(number: int, result: torch.Tensor) -> float:
        weight, dequantized = weights[number % len(weights)], one.dequantized()
        given, wanted = [], []
        for expert in counts.nonzero()[:, 0].tolist():
            used = int(counts[expert])
            given.append(result[expert, :used])
            wanted.append(dequantized[:used] @ dequantize_blocks(weight.values[expert], weight.scales[expert]).T)
        return distance(torch.cat(given), torch.cat(wanted))

    distinct, pairs = int((counts > 0).sum()), int(counts.sum())
    cold = (weights[0].values.nbytes + weights[0].scales.nbytes) * distinct // experts
    return KernelCase(
        op=f"{op} {columns} to {outputs}",
        name="DeepGEMM masked grouped",
        rows=rows,
        bytes=cold + pairs * (columns + columns // 128 * 4 + outputs * 2),
        cold_bytes=cold,
        ours=(op, name),
        prepare=prepare,
        deviation=deviation,
        limit=_LIMIT,
        remark=f"{distinct} experts; neither gate, permutation nor sum is in the rival's",
    )


def even_routing(rows: int, experts: int, experts_per_row: int, shared: int) -> torch.Tensor:
    """How many rows each expert has, int64 [experts]: seeded, every routed one equally likely; shared ones have all."""
    routed = torch.rand(rows, experts - shared, generator=torch.Generator().manual_seed(rows))
    ids = routed.topk(experts_per_row, -1).indices.flatten()
    return torch.cat([torch.bincount(ids, minlength=experts - shared), torch.full((shared,), rows)])


def own_memory(weights: Sequence[Fp8Weight], number: int) -> Fp8Weight:
    """Weight ``number`` of an endless row of them: the layers' own, then copies."""
    weight = weights[number % len(weights)]
    return weight if number < len(weights) else Fp8Weight(weight.values.clone(), weight.scales.clone())


def as_torch(tensor: object) -> torch.Tensor:
    """What a library that has tensors of its own returned."""
    return tensor if isinstance(tensor, torch.Tensor) else torch.from_dlpack(tensor)
