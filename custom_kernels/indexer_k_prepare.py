"""The indexer's key before it is quantised: LayerNorm, rotary embedding, Hadamard rotation.

Source: SGLang's NSA indexer (`k_norm`, rotary embedding of the first dimensions, `rotate_activation`).
"""

import torch

from predecode.custom_kernels.hadamard import hadamard_rotate
from predecode.custom_kernels.launch import Launch, float_bits
from predecode.custom_kernels.layouts import INDEXER_HEAD_DIM
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.rope import require_rope_layout, require_rope_rows, rope_define, rotate
from predecode.custom_kernels.targets import Target

INDEXER_ROPE_DIM = 64
"""The rotated dimensions come first in an indexer head."""


def reference(
    k: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    epsilon: float,
    rope_table: torch.Tensor,
    positions: torch.Tensor,
    rope_layout: str,
) -> torch.Tensor:
    x = k.float()
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    normed = centred * torch.rsqrt(variance + epsilon) * weight.float() + bias.float()
    return rope_and_hadamard(normed.to(k.dtype)[:, None], rope_table, positions, rope_layout)[:, 0]


def rope_and_hadamard(
    heads: torch.Tensor, rope_table: torch.Tensor, positions: torch.Tensor, rope_layout: str
) -> torch.Tensor:
    """``heads`` [T, heads, 128] rotated by position, then by the Hadamard matrix, rounded after each."""
    turned = rotate(heads.float(), rope_table, positions, rope_layout, first=0).to(heads.dtype)
    return hadamard_rotate(turned.float()).to(heads.dtype)


def _fake(k, weight, bias, epsilon, rope_table, positions, rope_layout):
    return torch.empty_like(k)


_ROWS_PER_WORKGROUP = 4


def _launch(target: Target, call: Call) -> Launch | None:
    if {call[name].dtype for name in ("k", "weight", "bias")} != {torch.bfloat16}:
        return None
    rows, rope_dim = call["k"].shape[0], call["rope_table"].shape[1]
    operands = ("k", "weight", "bias", "rope_table", "positions")
    if not target.has_hip_kernels:
        return Launch(
            source="indexer_k_prepare.cpp",
            symbol="indexer_k_prepare",
            operands=operands,
            constants=(float_bits(call["epsilon"]),),
            workgroups=(rows, 1, 1),
            defines=(("ROPE_DIM", rope_dim), rope_define(call["rope_layout"])),
        )
    return Launch(
        source="indexer_k_prepare.hip",
        symbol="indexer_k_prepare",
        operands=operands,
        constants=(rows, float_bits(call["epsilon"])),
        workgroups=(-(-rows // _ROWS_PER_WORKGROUP), 1, 1),
        workgroup_size=(64, 1, 1),
        defines=(rope_define(call["rope_layout"]),),
    )


def _touched(call: Call) -> dict[str, int]:
    return {"rope_table": call["k"].shape[0] * call["rope_table"].shape[1] * 4}


OP = define_op(
    "indexer_k_prepare(Tensor k, Tensor weight, Tensor bias, float epsilon, Tensor rope_table, "
    "Tensor positions, str rope_layout) -> Tensor",
    reference,
    _fake,
    launch=_launch,
    touched=_touched,
)


def indexer_k_prepare(
    k: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    epsilon: float,
    rope_table: torch.Tensor,
    positions: torch.Tensor,
    rope_layout: str,
) -> torch.Tensor:
    """``k`` [T, 128] -> the same shape and dtype, rounded to that dtype after each of the three steps.

    ``weight`` and ``bias`` [128] are the LayerNorm's, ``rope_table`` float32 [max positions, 64],
    ``positions`` int64 [T], ``rope_layout`` "interleaved" or "halves".
    """
    rows = k.shape[0]
    require_rope_layout("indexer_k_prepare", rope_layout)
    require_rope_rows("indexer_k_prepare", rope_table, positions, rows, INDEXER_ROPE_DIM)
    if list(k.shape) != [rows, INDEXER_HEAD_DIM] or {weight.shape, bias.shape} != {(INDEXER_HEAD_DIM,)}:
        raise ValueError(
            f"indexer_k_prepare: k {list(k.shape)} with weight {list(weight.shape)} and bias "
            f"{list(bias.shape)}; expected [T, {INDEXER_HEAD_DIM}] and [{INDEXER_HEAD_DIM}] twice"
        )
    return torch.ops.predecode.indexer_k_prepare(k, weight, bias, epsilon, rope_table, positions, rope_layout)
