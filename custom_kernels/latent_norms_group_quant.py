"""The two norms of MLA's low-rank input: the query part quantised in groups of 128, the latent part not.

Source: aiter `fused_rms_fp8_group_quant` with the query as ``inp1`` and the latent as ``inp2``. Both parts
are read in place from the output of the fused down projection.
"""

import torch

from predecode.custom_kernels.formats import ELEMENT_FORMATS, ElementFormat
from predecode.custom_kernels.launch import Launch, float_bits
from predecode.custom_kernels.layouts import GROUP, GROUP_MAJOR_SCALES
from predecode.custom_kernels.normalize import rms_normalize
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.quantize import quantize_groups
from predecode.custom_kernels.require import require_groups, require_tensor
from predecode.custom_kernels.row_workgroups import THREADS, chunks_of
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.values import QuantizedActivation

LATENT_MULTIPLE = 8
"""The kernel reads eight columns at a time."""


def reference(
    qkv_a: torch.Tensor,
    query_weight: torch.Tensor,
    latent_weight: torch.Tensor,
    query_epsilon: float,
    latent_epsilon: float,
    element_format: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    query_dim, latent_dim = query_weight.shape[0], latent_weight.shape[0]
    query = rms_normalize(qkv_a[:, :query_dim], query_weight, query_epsilon)
    values, scales = quantize_groups(query, ELEMENT_FORMATS[element_format])
    latent = rms_normalize(qkv_a[:, query_dim : query_dim + latent_dim], latent_weight, latent_epsilon)
    return values, GROUP_MAJOR_SCALES.pack(scales), latent.to(qkv_a.dtype)


def _fake(qkv_a, query_weight, latent_weight, query_epsilon, latent_epsilon, element_format):
    rows, query_dim, latent_dim = qkv_a.shape[0], query_weight.shape[0], latent_weight.shape[0]
    return (
        qkv_a.new_empty((rows, query_dim), dtype=ELEMENT_FORMATS[element_format].dtype),
        qkv_a.new_empty((query_dim // GROUP, rows), dtype=torch.float32),
        qkv_a.new_empty((rows, latent_dim)),
    )


def _launch(target: Target, call: Call) -> Launch | None:
    if call["element_format"] != target.element_format.name:
        return None
    rows, columns = call["qkv_a"].shape
    query_dim, latent_dim = call["query_weight"].shape[0], call["latent_weight"].shape[0]
    epsilons = float_bits(call["query_epsilon"]), float_bits(call["latent_epsilon"])
    operands = ("qkv_a", "query_weight", "latent_weight")
    if not target.has_hip_kernels:
        return Launch(
            source="latent_norms_group_quant.cpp",
            symbol="latent_norms_group_quant",
            operands=operands,
            constants=(rows, columns, *epsilons),
            workgroups=(rows, 1, 1),
            defines=(("QUERY_DIM", query_dim), ("LATENT_DIM", latent_dim)),
        )
    return Launch(
        source="latent_norms_group_quant.hip",
        symbol="latent_norms_group_quant",
        operands=operands,
        constants=(rows, columns, query_dim, latent_dim, *epsilons),
        workgroups=(rows, 2, 1),
        workgroup_size=(THREADS, 1, 1),
        defines=(("CHUNKS", chunks_of(max(query_dim, latent_dim))),),
    )


OP = define_op(
    "latent_norms_group_quant(Tensor qkv_a, Tensor query_weight, Tensor latent_weight, float query_epsilon, "
    "float latent_epsilon, str element_format) -> (Tensor, Tensor, Tensor)",
    reference,
    _fake,
    launch=_launch,
)


def latent_norms_group_quant(
    qkv_a: torch.Tensor,
    query_weight: torch.Tensor,
    latent_weight: torch.Tensor,
    query_epsilon: float,
    latent_epsilon: float,
    element_format: ElementFormat,
) -> tuple[QuantizedActivation, torch.Tensor]:
    """RMSNorms of the columns [0, Q) and [Q, Q + L) of ``qkv_a`` bf16 [T, Q + L + R].

    ``query_weight`` bf16 [Q], Q a multiple of 128; ``latent_weight`` bf16 [L]; Q + L + R and L are
    multiples of 8. Returns the query part quantised (scales float32 [Q/128, T]) and the latent part as bf16
    [T, L]; float32 instead of bf16 where the format does not quantise.
    """
    op, dtype = "latent_norms_group_quant", element_format.activation_dtype
    require_tensor(op, "qkv_a", qkv_a, dtype, ("T", "Q + L + R"))
    require_tensor(op, "query_weight", query_weight, dtype, ("Q",))
    require_tensor(op, "latent_weight", latent_weight, dtype, ("L",))
    query_dim, latent_dim, columns = query_weight.shape[0], latent_weight.shape[0], qkv_a.shape[1]
    require_groups(op, "query_weight", query_dim)
    if columns < query_dim + latent_dim or columns % LATENT_MULTIPLE or latent_dim % LATENT_MULTIPLE:
        raise ValueError(
            f"{op}: qkv_a has {columns} columns for Q = {query_dim} and L = {latent_dim}; expected at least "
            f"Q + L, and both L and the columns a multiple of {LATENT_MULTIPLE}"
        )
    values, scales, latent = torch.ops.predecode.latent_norms_group_quant(
        qkv_a, query_weight, latent_weight, query_epsilon, latent_epsilon, element_format.name
    )
    return QuantizedActivation(values, scales, GROUP_MAJOR_SCALES), latent
