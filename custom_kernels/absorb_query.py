"""Absorb the key half of kv_b into the query: every head's nope part moves into the latent space.

The weight stays as the checkpoint has it, FP8 with one scale per 128 x 128 block of the flattened kv_b rows; the
query is not quantised. (SGLang quantises the weight a second time, per tensor, for aiter's
`batched_gemm_a8w8_a_per_token_group_prequant_w_per_batched_tensor_quant`.)
"""

import torch

from predecode.custom_kernels.formats import FORMAT_OF_DTYPE
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import GROUP, ROW_MAJOR, require_layout
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.quantize import dequantize_blocks
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.values import BlockScaledWeight

THREADS = 64
COLUMNS_PER_THREAD = 4
ROWS_PER_WORKGROUP = 4


def kv_b_heads(weight: torch.Tensor, weight_scales: torch.Tensor) -> torch.Tensor:
    """float32 [h, nope + v, L] from values of that shape and scales over their flattened rows."""
    heads, rows, latent = weight.shape
    return dequantize_blocks(weight.reshape(heads * rows, latent), weight_scales).reshape(heads, rows, latent)


def reference(
    q: torch.Tensor, weight: torch.Tensor, weight_scales: torch.Tensor, rope_dim: int
) -> torch.Tensor:
    heads = weight.shape[0]
    nope = q.shape[1] // heads - rope_dim
    query = q.float().reshape(q.shape[0], heads, nope + rope_dim)[..., :nope]
    key_rows = kv_b_heads(weight, weight_scales)[:, :nope]
    return torch.bmm(query.transpose(0, 1), key_rows).transpose(0, 1).contiguous().to(q.dtype)


def _fake(q, weight, weight_scales, rope_dim):
    return q.new_empty((q.shape[0], weight.shape[0], weight.shape[2]))


def _launch(target: Target, call: Call) -> Launch | None:
    heads, rows_per_head, latent = call["weight"].shape
    rows, columns = call["q"].shape
    head_dim = columns // heads
    nope = head_dim - call["rope_dim"]
    operands = ("q", "weight", "weight_scales")
    if FORMAT_OF_DTYPE[call["weight"].dtype] != target.element_format or latent % COLUMNS_PER_THREAD:
        return None
    if not target.has_hip_kernels:
        return Launch(
            source="absorb_query.cpp",
            symbol="absorb_query",
            operands=operands,
            constants=(rows, heads, head_dim, nope, rows_per_head, latent),
            workgroups=(-(-latent // GROUP), heads, 1),
        )
    return Launch(
        source="absorb_query.hip",
        symbol="absorb_query",
        operands=operands,
        constants=(rows, heads, head_dim, rows_per_head, latent),
        workgroups=(-(-latent // (THREADS * COLUMNS_PER_THREAD)), heads, -(-rows // ROWS_PER_WORKGROUP)),
        workgroup_size=(THREADS, 1, 1),
        defines=(("NOPE", nope),),
    )


def _touched(call: Call) -> dict[str, int]:
    heads, _, latent = call["weight"].shape
    nope = call["q"].shape[1] // heads - call["rope_dim"]
    return {
        "q": call["q"].shape[0] * heads * nope * call["q"].element_size(),
        "weight": heads * nope * latent,
    }


OP = define_op(
    "absorb_query(Tensor q, Tensor weight, Tensor weight_scales, int rope_dim) -> Tensor",
    reference,
    _fake,
    launch=_launch,
    touched=_touched,
)


def absorb_query(q: torch.Tensor, weight: BlockScaledWeight, rope_dim: int) -> torch.Tensor:
    """``out[t, h, l] = sum_n q[t, h, n] * w[h, n, l]`` over the nope elements, accumulated in float32.

    ``q`` [T, h * (nope + rope_dim)], nope first within a head; ``weight`` row-major [h, nope + v, L] with scales
    float32 [ceil(h * (nope + v) / 128), ceil(L / 128)]. Returns [T, h, L] in ``q``'s dtype.
    """
    require_layout("absorb_query", "weight", weight.layout, ROW_MAJOR, "kv_b is stored unpacked")
    heads = weight.values.shape[0]
    nope = q.shape[1] // heads - rope_dim
    if q.dim() != 2 or q.shape[1] % heads or not 0 < nope <= weight.values.shape[1]:
        raise ValueError(
            f"absorb_query: q is {list(q.shape)}, expected [T, {heads} heads * (nope + {rope_dim})] with nope at "
            f"most {weight.values.shape[1]}"
        )
    return torch.ops.predecode.absorb_query(q, weight.values, weight.scales, rope_dim)
