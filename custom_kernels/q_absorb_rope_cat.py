"""The attention query of absorbed MLA: nope parts moved into the latent space, rope parts rotated, joined, in FP8.

Source: the query half of aiter `fused_qk_rope_cat_and_cache_mla`, with the product that makes its input.
"""

from dataclasses import replace

import torch

from predecode.custom_kernels.formats import FORMAT_OF_DTYPE
from predecode.custom_kernels.join_columns import join_columns
from predecode.custom_kernels.kv_b import ROW_STEP, kv_b_heads, require_kv_b
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import GROUP, TILE
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.require import require_tensor
from predecode.custom_kernels.rope import require_rope_layout, require_rope_rows, rope_define, rotate
from predecode.custom_kernels.row_workgroups import THREADS
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.topk_slots import THREADS as SELECTION_THREADS
from predecode.custom_kernels.values import BlockScaledWeight

COLUMN_MULTIPLE = 64
"""Latent columns of a workgroup of 256 threads."""
SELECTION_COLUMNS, SELECTION_NOPE = 256, 192
"""Of a workgroup on NVIDIA, as large as those of the selection, beside which it runs: latent columns, and the most nope
dimensions that it has registers for, where neighbours are rotated."""


def reference(
    q: torch.Tensor,
    weight: torch.Tensor,
    weight_scales: torch.Tensor,
    rope_table: torch.Tensor,
    positions: torch.Tensor,
    rope_layout: str,
) -> torch.Tensor:
    heads, _, latent = weight.shape
    rope_dim = rope_table.shape[1]
    split = q.reshape(q.shape[0], heads, -1)
    nope = split.shape[2] - rope_dim
    key_rows = kv_b_heads(weight, weight_scales)[:, :nope]
    absorbed = torch.bmm(split[..., :nope].float().transpose(0, 1), key_rows).transpose(0, 1).contiguous()
    joined = join_columns(absorbed.to(q.dtype), split, nope)
    rotated = rotate(joined.float(), rope_table, positions, rope_layout, latent)
    return FORMAT_OF_DTYPE[weight.dtype].encode(rotated.to(q.dtype))


def _fake(q, weight, weight_scales, rope_table, positions, rope_layout):
    heads, _, latent = weight.shape
    return q.new_empty((q.shape[0], heads, latent + rope_table.shape[1]), dtype=weight.dtype)


def _launch(target: Target, call: Call) -> Launch | None:
    heads, rows_per_head, latent = call["weight"].shape
    rows, columns = call["q"].shape
    rope_dim = call["rope_table"].shape[1]
    nope = columns // heads - rope_dim
    operands = ("q", "weight", "weight_scales", "rope_table", "positions")
    defines = (("LATENT", latent), ("NOPE", nope), ("ROPE_DIM", rope_dim), rope_define(call["rope_layout"]))
    if FORMAT_OF_DTYPE[call["weight"].dtype] != target.element_format:
        return None
    if not target.has_hip_kernels:
        return Launch(
            source="q_absorb_rope_cat.cpp",
            symbol="q_absorb_rope_cat",
            operands=operands,
            constants=(rows, heads, rows_per_head),
            workgroups=(-(-latent // GROUP) + 1, heads, 1),
            defines=defines,
        )
    # Rotated halves are exchanged between lanes of a wave, at a distance that is a power of two.
    rotates = rope_dim in (16, 32, 64, 128)
    if latent % COLUMN_MULTIPLE or nope % ROW_STEP or rows_per_head % ROW_STEP or not rotates:
        return None

    def cut(threads: int, columns_each: int) -> Launch:
        return Launch(
            source="q_absorb_rope_cat.hip",
            symbol="q_absorb_rope_cat",
            operands=operands,
            constants=(rows,),
            workgroups=(latent // columns_each, heads, -(-rows // TILE)),
            workgroup_size=(threads, 1, 1),
            defines=(
                ("THREADS", threads),
                ("COLUMNS", columns_each),
                ("HEADS", heads),
                ("HEAD_ROWS", rows_per_head),
                *defines,
            ),
        )

    launch = cut(THREADS, COLUMN_MULTIPLE)
    fits = latent % SELECTION_COLUMNS == 0 and nope <= SELECTION_NOPE and call["rope_layout"] == "interleaved"
    if target.device != "cuda" or not fits:
        return launch
    return replace(cut(SELECTION_THREADS, SELECTION_COLUMNS), when_resident=launch)


def _touched(call: Call) -> dict[str, int]:
    heads, _, latent = call["weight"].shape
    rows, columns = call["q"].shape
    rope_dim = call["rope_table"].shape[1]
    return {"weight": heads * (columns // heads - rope_dim) * latent, "rope_table": rows * rope_dim * 4}


OP = define_op(
    "q_absorb_rope_cat(Tensor q, Tensor weight, Tensor weight_scales, Tensor rope_table, Tensor positions, "
    "str rope_layout) -> Tensor",
    reference,
    _fake,
    launch=_launch,
    touched=_touched,
)


def q_absorb_rope_cat(
    q: torch.Tensor,
    weight: BlockScaledWeight,
    rope_table: torch.Tensor,
    positions: torch.Tensor,
    rope_layout: str,
) -> torch.Tensor:
    """Attention query [T, h, L + R] in the weight's format: ``sum_n q[t, h, n] * w[h, n, l]``, then the rope part.

    ``q`` [T, h * (nope + R)] is q_b's output; a head's last R columns are rotated. ``weight`` row-major
    [h, nope + v, L] with scales float32 [ceil(h * (nope + v) / 128), ceil(L / 128)]. ``rope_table`` float32
    [max positions, R], ``positions`` int64 [T]. Sums are float32; sums and rotated values are rounded to the
    activation dtype, then cast to the format without a scale, saturating (aiter leaves overflow to the hardware).
    """
    consumer = "q_absorb_rope_cat"
    heads, rows_per_head, _ = require_kv_b(consumer, weight)
    require_tensor(consumer, "q", q, FORMAT_OF_DTYPE[weight.values.dtype].activation_dtype, ("T", "h * (nope + R)"))
    rope_dim = rope_table.shape[-1]
    require_rope_layout(consumer, rope_layout)
    require_rope_rows(consumer, rope_table, positions, q.shape[0], rope_dim)
    nope = q.shape[1] // heads - rope_dim
    if q.shape[1] % heads or not 0 < nope <= rows_per_head:
        raise ValueError(
            f"{consumer}: q is {list(q.shape)}, expected [T, {heads} heads * (nope + {rope_dim})] with nope at most "
            f"{rows_per_head}"
        )
    return torch.ops.predecode.q_absorb_rope_cat(q, weight.values, weight.scales, rope_table, positions, rope_layout)
