"""Combine attention parts, bring them to the value heads with the value half of kv_b, and quantise them flattened.

Sources: the combination of SGLang's split `sparse_mla_fwd`, then aiter's product with w_vc and
`fused_flatten_fp8_group_quant` with ``transpose_scale``: the input of the output projection.
"""

import torch

from predecode.custom_kernels.formats import FORMAT_OF_DTYPE
from predecode.custom_kernels.kv_b import ROW_STEP, kv_b_heads, require_kv_b
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import GROUP, GROUP_MAJOR_SCALES
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.quantize import quantize_groups
from predecode.custom_kernels.require import require_groups
from predecode.custom_kernels.row_workgroups import THREADS
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.values import AttentionParts, BlockScaledWeight, QuantizedActivation

COLUMN_MULTIPLE = 64
"""Latent columns of a step of the GPU kernel."""
MOST_ROWS = 16
"""Rows of a workgroup, which reads its part of the weight once for them."""
FEWEST_WORKGROUPS = 128
"""Rather than fewer workgroups, the weight is read again."""


def reference(
    parts: torch.Tensor,
    log_sums: torch.Tensor,
    weight: torch.Tensor,
    weight_scales: torch.Tensor,
    nope_dim: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    element_format = FORMAT_OF_DTYPE[weight.dtype]
    largest = log_sums.amax(2, keepdim=True)
    shares = torch.exp(log_sums - torch.where(largest == float("-inf"), 0.0, largest))
    total = shares.sum(2, keepdim=True)
    shares = shares / torch.where(total == 0, 1.0, total)
    attended = (shares[..., None] * parts.float()).sum(2).to(parts.dtype).float()
    value_rows = kv_b_heads(weight, weight_scales)[:, nope_dim:]
    heads = torch.bmm(attended.transpose(0, 1), value_rows.transpose(1, 2)).transpose(0, 1).contiguous()
    values, scales = quantize_groups(heads.to(element_format.activation_dtype).float().flatten(1), element_format)
    return values, GROUP_MAJOR_SCALES.pack(scales)


def _fake(parts, log_sums, weight, weight_scales, nope_dim):
    rows, columns = parts.shape[0], weight.shape[0] * (weight.shape[1] - nope_dim)
    return parts.new_empty((rows, columns), dtype=weight.dtype), parts.new_empty(
        (columns // GROUP, rows), dtype=torch.float32
    )


def _launch(target: Target, call: Call) -> Launch | None:
    rows, heads, splits, latent = call["parts"].shape
    rows_per_head, nope = call["weight"].shape[1], call["nope_dim"]
    if FORMAT_OF_DTYPE[call["weight"].dtype] != target.element_format:
        return None
    operands = ("parts", "log_sums", "weight", "weight_scales")
    defines = (("LATENT", latent), ("SPLITS", splits), ("NOPE", nope))
    groups = (rows_per_head - nope) // GROUP
    if not target.has_hip_kernels:
        return Launch(
            source="value_up_group_quant.cpp",
            symbol="value_up_group_quant",
            operands=operands,
            constants=(rows, heads, rows_per_head),
            workgroups=(heads, rows, 1),
            defines=defines,
        )
    if latent % COLUMN_MULTIPLE or nope % ROW_STEP or rows_per_head % ROW_STEP:
        return None
    together = MOST_ROWS
    while together > 1 and groups * heads * -(-rows // together) < FEWEST_WORKGROUPS:
        together //= 2
    return Launch(
        source="value_up_group_quant.hip",
        symbol="value_up_group_quant",
        operands=operands,
        constants=(rows, heads, rows_per_head),
        workgroups=(groups, heads, -(-rows // together)),
        workgroup_size=(THREADS, 1, 1),
        defines=(*defines, ("ROWS", together)),
        reads_early=("weight", "weight_scales"),
    )


def _touched(call: Call) -> dict[str, int]:
    heads, rows_per_head, latent = call["weight"].shape
    return {"weight": heads * (rows_per_head - call["nope_dim"]) * latent}


OP = define_op(
    "value_up_group_quant(Tensor parts, Tensor log_sums, Tensor weight, Tensor weight_scales, int nope_dim) "
    "-> (Tensor, Tensor)",
    reference,
    _fake,
    launch=_launch,
    touched=_touched,
)


def value_up_group_quant(parts: AttentionParts, weight: BlockScaledWeight, nope_dim: int) -> QuantizedActivation:
    """``out[t, h * v + j] = sum_l attended[t, h, l] * w[h, nope_dim + j, l]``, quantised in groups of 128.

    ``attended`` is the mean of the parts [T, h, parts, L], weighted by their softmax (zeros for a row without
    tokens), rounded to their dtype. ``weight`` row-major [h, nope_dim + v, L], v a multiple of 128, with scales
    float32 [ceil(h * (nope_dim + v) / 128), ceil(L / 128)]. Sums are float32, rounded to the activation dtype before
    they are quantised. Returns [T, h * v], scales float32 [h * v / 128, T].
    """
    consumer = "value_up_group_quant"
    heads, rows_per_head, latent = require_kv_b(consumer, weight)
    given, logs = list(parts.values.shape), list(parts.log_sums.shape)
    if len(given) != 4 or (given[1], given[3]) != (heads, latent) or logs != given[:3]:
        raise ValueError(
            f"{consumer}: parts are {given}, log sums {logs}; expected [T, {heads}, parts, {latent}] and "
            f"[T, {heads}, parts], as the weight asks"
        )
    if not 0 <= nope_dim < rows_per_head:
        raise ValueError(f"{consumer}: nope_dim is {nope_dim}, expected 0 to {rows_per_head - 1}")
    require_groups(consumer, "a head's values", rows_per_head - nope_dim)
    values, scales = torch.ops.predecode.value_up_group_quant(
        parts.values, parts.log_sums, weight.values, weight.scales, nope_dim
    )
    return QuantizedActivation(values, scales, GROUP_MAJOR_SCALES)
