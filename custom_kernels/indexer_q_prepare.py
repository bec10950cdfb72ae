"""The indexer's query: rotary embedding, Hadamard rotation, quantisation, and the weight of every head.

Source: SGLang's NSA indexer (`rotate_activation`, `act_quant` with power-of-two scales, head gates).
"""

import torch

from predecode.custom_kernels.formats import ELEMENT_FORMATS, ElementFormat
from predecode.custom_kernels.indexer_quantize import UE8M0, quantize_head
from predecode.custom_kernels.indexer_rotation import INDEXER_ROPE_DIM, rope_and_hadamard
from predecode.custom_kernels.launch import Launch, float_bits
from predecode.custom_kernels.layouts import INDEXER_HEAD_DIM
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.rope import require_rope_layout, require_rope_rows, rope_define
from predecode.custom_kernels.targets import Target


def reference(
    q: torch.Tensor,
    gates: torch.Tensor,
    rope_table: torch.Tensor,
    positions: torch.Tensor,
    rope_layout: str,
    element_format: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    stored = ELEMENT_FORMATS[element_format]
    rows, heads = gates.shape
    q_heads = q.reshape(rows, heads, INDEXER_HEAD_DIM)
    rotated = rope_and_hadamard(q_heads, rope_table, positions, rope_layout)
    values, scales = quantize_head(rotated, stored.indexer_query_maximum, UE8M0, stored)
    return values, gates * heads**-0.5 * scales * INDEXER_HEAD_DIM**-0.5


def _fake(q, gates, rope_table, positions, rope_layout, element_format):
    shape = (*gates.shape, INDEXER_HEAD_DIM)
    return q.new_empty(shape, dtype=ELEMENT_FORMATS[element_format].dtype), torch.empty_like(gates)


_THREADS = 256
_HEADS_PER_WORKGROUP = 16


def _launch(target: Target, call: Call) -> Launch | None:
    if call["element_format"] != target.element_format.name:
        return None
    rows, heads = call["gates"].shape
    operands = ("q", "gates", "rope_table", "positions")
    if not target.has_hip_kernels:
        return Launch(
            source="indexer_q_prepare.cpp",
            symbol="indexer_q_prepare",
            operands=operands,
            constants=(heads, float_bits(heads**-0.5 * INDEXER_HEAD_DIM**-0.5)),
            workgroups=(heads, rows, 1),
            defines=(("ROPE_DIM", call["rope_table"].shape[1]), rope_define(call["rope_layout"])),
        )
    return Launch(
        source="indexer_q_prepare.hip",
        symbol="indexer_q_prepare",
        operands=operands,
        constants=(rows * heads, float_bits(heads**-0.5)),
        workgroups=(-(-rows * heads // _HEADS_PER_WORKGROUP), 1, 1),
        workgroup_size=(_THREADS, 1, 1),
        defines=(("HEADS", heads), rope_define(call["rope_layout"])),
    )


def touched(call: Call) -> dict[str, int]:
    """A row of the rope table for each of ``call``'s."""
    return {"rope_table": call["gates"].shape[0] * call["rope_table"].shape[1] * 4}


OP = define_op(
    "indexer_q_prepare(Tensor q, Tensor gates, Tensor rope_table, Tensor positions, str rope_layout, "
    "str element_format) -> (Tensor, Tensor)",
    reference,
    _fake,
    launch=_launch,
    touched=touched,
)


def indexer_q_prepare(
    q: torch.Tensor,
    gates: torch.Tensor,
    rope_table: torch.Tensor,
    positions: torch.Tensor,
    rope_layout: str,
    element_format: ElementFormat,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``q`` [T, H * 128] -> values [T, H, 128] in the format and weights float32 [T, H].

    ``gates`` float32 [T, H], ``rope_table`` float32 [max positions, 64], ``positions`` int64 [T],
    ``rope_layout`` "interleaved" or "halves". Rope and Hadamard each round to q's dtype. A head's scale is a
    power of two that maps its largest value within ``indexer_query_maximum``; it is folded into the weight
    ``gate * H ** -0.5 * scale * 128 ** -0.5``, so the query has no scale of its own.
    """
    rows = q.shape[0]
    require_rope_layout("indexer_q_prepare", rope_layout)
    require_rope_rows("indexer_q_prepare", rope_table, positions, rows, INDEXER_ROPE_DIM)
    if gates.dtype != torch.float32 or q.dim() != 2 or list(gates.shape) != [rows, q.shape[1] // INDEXER_HEAD_DIM]:
        raise ValueError(
            f"indexer_q_prepare: q {list(q.shape)} with gates {gates.dtype}{list(gates.shape)}; expected "
            f"[T, H * {INDEXER_HEAD_DIM}] and float32 [T, H]"
        )
    return torch.ops.predecode.indexer_q_prepare(q, gates, rope_table, positions, rope_layout, element_format.name)
