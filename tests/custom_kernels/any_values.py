"""Rows of every kind of value, and calls of the ops made of them: what the property tests draw from.

A call is made for an element format from the kinds of its rows (and of its weights' rows), so that one call holds
several kinds. Comparisons follow from the values, element by element where a sum can cancel.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.layouts import TILED_16X16
from predecode.custom_kernels.op import OPS
from tests.custom_kernels.cases.activations import quantized, rounded
from tests.custom_kernels.cases.block_scaled import NAN_CODES, elements, scales
from tests.custom_kernels.cases.case import EXACT, Case, Comparison
from tests.custom_kernels.cases.kv_b import kv_b
from tests.custom_kernels.cases.latent_norms_and_cache import stored_keys
from tests.custom_kernels.cases.moe_gate_up import routing
from tests.custom_kernels.cases.q_absorb_rope_cat import close as close_to_absorbed
from tests.custom_kernels.cases.rotation import random_slots, scattered_positions, table
from tests.custom_kernels.cases.value_up_group_quant import close as close_to_values

Generator = torch.Generator
FLOATS: dict[str, Callable[[Generator, int], torch.Tensor]] = {
    "normal": lambda g, n: torch.randn(n, generator=g),
    "of many sizes": lambda g, n: torch.randn(n, generator=g) * torch.exp2(8 * torch.randn(n, generator=g)),
    "few values": lambda g, n: torch.randn(n, generator=g).round(),
    "all equal": lambda g, n: torch.randn(1, generator=g).expand(n),
    "zeros": lambda g, n: torch.zeros(n),
    "negative zeros": lambda g, n: -torch.zeros(n),
    "denormal": lambda g, n: torch.randn(n, generator=g) * 1e-39,
    "tiny": lambda g, n: torch.randn(n, generator=g) * 1e-30,
    "huge": lambda g, n: torch.randn(n, generator=g) * 1e15,
    "an outlier": lambda g, n: with_one(torch.randn(n, generator=g), g, 3e4),
    "a NaN": lambda g, n: with_one(torch.randn(n, generator=g), g, float("nan")),
    "an infinity": lambda g, n: with_one(torch.randn(n, generator=g), g, float("-inf")),
}
CODES: dict[str, Callable[[Generator, int, ElementFormat], torch.Tensor]] = {
    "any code": lambda g, n, f: elements(g, (n,), f).view(torch.uint8),
    "zeros": lambda g, n, f: torch.zeros(n, dtype=torch.uint8),
    "the sign alone": lambda g, n, f: torch.full((n,), 0x80, dtype=torch.uint8),  # negative zero, or NaN
    "the largest": lambda g, n, f: signs(g, n) | f.encode(torch.tensor([f.maximum])).view(torch.uint8),
    "the smallest": lambda g, n, f: signs(g, n) | torch.randint(1, 10, (n,), generator=g, dtype=torch.uint8),
    "a NaN": lambda g, n, f: with_one(elements(g, (n,), f).view(torch.uint8), g, NAN_CODES[f.name][0]),
}
FACTORS = {"": 1.0, ", huge scales": 1e12, ", tiny scales": 1e-12, ", denormal scales": 1e-37}
QUANTIZED = [code + factor for code in CODES for factor in FACTORS]
"""Of rows of FP8 codes with scales."""


def with_one(row: torch.Tensor, generator: Generator, value: float) -> torch.Tensor:
    row[torch.randint(0, len(row), (1,), generator=generator)] = value
    return row


def signs(generator: Generator, count: int) -> torch.Tensor:
    return torch.randint(0, 2, (count,), generator=generator, dtype=torch.uint8) << 7


def float_rows(generator: Generator, kinds: Sequence[str], columns: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.stack([FLOATS[kind](generator, columns) for kind in kinds]).to(dtype)


def code_rows(generator: Generator, kinds: Sequence[str], columns: int, element_format: ElementFormat) -> torch.Tensor:
    rows = [CODES[kind.split(",")[0]](generator, columns, element_format) for kind in kinds]
    return torch.stack(rows).view(element_format.dtype)


def quantized_rows(generator: Generator, kinds: Sequence[str], columns: int, element_format: ElementFormat):
    """Values [rows, columns] and group-major scales [columns / 128, rows]."""
    factors = torch.tensor([FACTORS[kind.removeprefix(kind.split(",")[0])] for kind in kinds])
    return code_rows(generator, kinds, columns, element_format), scales(
        generator, (columns // 128, len(kinds))
    ) * factors


def bands_of(generator: Generator, kinds: Sequence[str], columns: int, element_format: ElementFormat):
    """A tiled weight of 16 rows a kind, and its scales."""
    rows = code_rows(generator, [kind for kind in kinds for _ in range(16)], columns, element_format)
    return TILED_16X16.pack(rows), scales(generator, (-(-len(rows) // 128), columns // 128))


def magnitudes(name: str, *arguments) -> torch.Tensor:
    """The product with every term's magnitude instead of the term: what the rounding of a sum is in proportion to."""
    return OPS[name].reference(*(tensor.float().abs().to(tensor.dtype) for tensor in arguments)).float()


def a_sum(expected: torch.Tensor, magnitude: torch.Tensor) -> Comparison:
    """The order of a float32 sum, and one rounding to ``expected``'s dtype."""
    rounding = torch.finfo(expected.dtype).eps if expected.itemsize == 2 else 0.0
    return Comparison(absolute=rounding * expected.float().abs() + 4e-6 * magnitude + 1e-30)


def a_quantization(values: torch.Tensor, element_format: ElementFormat) -> tuple[Comparison, Comparison]:
    """`quantized`, with no fewer than two codes that may differ."""
    codes, group_scales = quantized(element_format, False, values)
    return replace(codes, fraction=max(codes.fraction, 2 / values.numel())), group_scales


def gemm_fp8_blockscale(generator, rows, bands, size, element_format) -> Case:
    columns = (128, 384)[size]
    x = quantized_rows(generator, rows, columns, element_format)
    arguments = (*x, *bands_of(generator, bands, columns, element_format))
    expected = OPS["gemm_fp8_blockscale"].reference(*arguments)
    return Case("", arguments, (a_sum(expected, magnitudes("gemm_fp8_blockscale", *arguments)),))


def linear_bf16(generator, rows, outputs, size, element_format) -> Case:
    columns, dtype = (32, 544)[size], element_format.activation_dtype
    arguments = float_rows(generator, rows, columns, dtype), float_rows(generator, outputs, columns, dtype)
    expected = OPS["linear_bf16"].reference(*arguments)
    return Case("", arguments, (a_sum(expected, magnitudes("linear_bf16", *arguments)),))


def rms_norm_group_quant(generator, rows, _, size, element_format) -> Case:
    x = float_rows(generator, rows, (128, 2176)[size], element_format.activation_dtype)
    weight = (1 + 0.3 * torch.randn(x.shape[1], generator=generator)).to(x.dtype)
    arguments = x, weight, (1e-5, 10.0)[size], element_format.name
    values = OPS["rms_norm_group_quant"].reference(*arguments)[0]
    return Case("", arguments, (*a_quantization(values, element_format), rounded(element_format)))


def add_rms_norm_group_quant(generator, rows, others, size, element_format) -> Case:
    x, weight, epsilon, name = rms_norm_group_quant(generator, rows, others, size, element_format).arguments
    kinds = [others[i % len(others)] for i in range(len(rows))]
    arguments = x, float_rows(generator, kinds, x.shape[1], x.dtype), weight, epsilon, name
    values, _, _, total = OPS["add_rms_norm_group_quant"].reference(*arguments)
    sums = EXACT if not total.isnan().any() else rounded(element_format)  # NaN has several codes
    return Case("", arguments, (*a_quantization(values, element_format), rounded(element_format), sums))


def group_quant(generator, rows, _, size, element_format, name="group_quant") -> Case:
    arguments = float_rows(generator, rows, (256, 768)[size], element_format.activation_dtype), element_format.name
    return Case("", arguments, a_quantization(OPS[name].reference(*arguments)[0], element_format))


def silu_mul_group_quant(*drawn) -> Case:
    return group_quant(*drawn, name="silu_mul_group_quant")


def latent_norms_and_cache(generator, rows, _, size, element_format) -> Case:
    query, latent, rope, layout = ((128, 64, 64, "interleaved"), (256, 136, 32, "halves"))[size]
    x = float_rows(generator, rows, query + latent + rope, element_format.activation_dtype)
    weights = [(1 + 0.3 * torch.randn(n, generator=generator)).to(x.dtype) for n in (query, latent)]
    slots = random_slots(generator, len(rows), 2, padding=tuple(range(3, len(rows), 4)))
    cache = torch.randint(-128, 128, (2, 64 * (latent + rope)), generator=generator, dtype=torch.int8)
    positions = scattered_positions(generator, len(rows), 512)
    arguments = x, *weights, table(512, rope), positions, cache, slots, 1e-6, 1e-5, layout, element_format.name
    values, _, written = OPS["latent_norms_and_cache"].reference(*arguments)
    stored = stored_keys(element_format, written, latent + rope, slots)
    return Case("", arguments, (*a_quantization(values, element_format), stored))


def q_absorb_rope_cat(generator, rows, _, size, element_format) -> Case:
    heads, nope, v, latent, rope, layout = ((2, 64, 64, 128, 64, "interleaved"), (3, 96, 48, 64, 32, "halves"))[size]
    q = float_rows(generator, rows, heads * (nope + rope), element_format.activation_dtype)
    weight = kv_b(generator, heads, nope + v, latent, element_format)
    arguments = q, *weight, table(512, rope), scattered_positions(generator, len(rows), 512), layout
    values = OPS["q_absorb_rope_cat"].reference(*arguments)
    compare = replace(close_to_absorbed(element_format), fraction=0.02, region=~values.float().isnan())
    return Case("", arguments, (compare,))


def sparse_mla(generator, rows, tokens, size, element_format) -> Case:
    latent, rope, splits, topk = ((64, 64, 1, 40), (128, 64, 3, 130))[size]
    query = code_rows(generator, [kind for kind in rows for _ in range(3)], latent + rope, element_format)
    cache = code_rows(generator, [tokens[i % len(tokens)] for i in range(4 * 64)], latent + rope, element_format)
    slots = torch.stack([torch.randperm(4 * 64, generator=generator)[:topk] for _ in rows]).to(torch.int32)
    slots[torch.rand(slots.shape, generator=generator) < 0.2] = -1
    slots[2::5] = -1
    # Scores of the largest codes stay of the size at which a softmax is not decided by rounding.
    arguments = query.reshape(len(rows), 3, -1), cache.view(torch.int8).reshape(4, -1), slots, latent, 1e-6, splits
    return Case("", arguments, (Comparison(relative=2.0**-9, absolute=1e-3), Comparison(relative=2e-6, absolute=1e-5)))


LOG_SUMS = {
    "normal": FLOATS["normal"],
    "far apart": lambda g, n: torch.randn(n, generator=g) * 300,
    "all equal": FLOATS["all equal"],
    "no tokens": lambda g, n: torch.full((n,), float("-inf")),
    "one without tokens": lambda g, n: with_one(torch.randn(n, generator=g), g, float("-inf")),
}


def value_up_group_quant(generator, rows, sums, size, element_format) -> Case:
    heads, nope, v, latent, splits = ((2, 64, 128, 64, 2), (3, 80, 128, 192, 7))[size]
    weight = kv_b(generator, heads, nope + v, latent, element_format)
    log_sums = torch.stack([LOG_SUMS[sums[i % len(sums)]](generator, heads * splits) for i in range(len(rows))])
    log_sums = log_sums.reshape(len(rows), heads, splits)
    parts = float_rows(generator, rows, heads * splits * latent, torch.float32).clamp(-1e4, 1e4).to(torch.float16)
    parts = parts.reshape(len(rows), heads, splits, latent)
    parts[log_sums == float("-inf")] = 0
    log_sums[parts.isnan().any(-1)] = float("nan")  # as `sparse_mla` leaves a part with NaN
    arguments = parts, log_sums, *weight, nope
    return Case("", arguments, close_to_values(element_format, OPS["value_up_group_quant"].reference(*arguments)[0]))


def router_topk(generator, rows, biases, size, element_format) -> Case:
    experts, settings = ((16, (2, 4, 2, True, 2.5, 2)), (256, (8, 1, 1, True, 2.5, 1)))[size]
    logits = float_rows(generator, rows, experts, torch.float32)
    (bias,) = float_rows(generator, biases[:1], experts, torch.float32)
    arguments = logits, bias, *settings
    keys = (torch.sigmoid(logits.double()) + bias.double()).nan_to_num(float("-inf"), float("inf"), float("-inf"))
    groups = keys.reshape(len(rows), settings[1], -1).topk(min(2, experts // settings[1]), -1).values.sum(-1)
    # Of equal scores the lower id is chosen; rounding decides between nearly equal ones, and equal sums of others.
    decided = (_gaps(keys) == 0) | (_gaps(keys) > 1e-6)
    decided = decided.all(1) & (_gaps(groups) > 1e-6).all(1)
    ids, _ = OPS["router_topk"].reference(*arguments)
    region = decided[:, None].expand(ids.shape)
    return Case("", arguments, (replace(EXACT, region=region), Comparison(relative=1e-6, region=region)))


def _gaps(values: torch.Tensor) -> torch.Tensor:
    """Between neighbours of the sorted ``values`` of a row, in proportion to those above one."""
    values = values.sort(-1).values
    below, above = values[..., :-1], values[..., 1:]
    return torch.where(below == above, 0.0, (above - below) / above.abs().clamp(1, 1e300))


def weights_of_experts(generator, kinds, shape, element_format):
    """A weight [experts, N, K] whose experts are of ``kinds``, and its scales."""
    experts = [bands_of(generator, [kind] * (shape[0] // 16), shape[1], element_format) for kind in kinds]
    return tuple(torch.stack(parts) for parts in zip(*experts, strict=True))


def moe_gate_up(generator, rows, experts, size, element_format) -> Case:
    columns = (128, 384)[size]
    weight = weights_of_experts(generator, experts, (32, columns), element_format)
    ids = routing(generator, len(rows), 2, len(experts))
    x = quantized_rows(generator, rows, columns, element_format)
    return Case("", (*x, ids, *weight, 1), (Comparison(relative=2.0**-6, absolute=1e-30),))


def moe_down(generator, rows, experts, size, element_format) -> Case:
    columns = (128, 384)[size]
    weight = weights_of_experts(generator, experts, (48, columns), element_format)
    ids = routing(generator, len(rows), 2, len(experts))
    x = quantized_rows(generator, [kind for kind in rows for _ in range(2)], columns, element_format)
    expert_weights = torch.rand(ids.shape, generator=generator) * 2.5
    return Case("", (*x, ids, expert_weights, *weight, 1), (Comparison(relative=2.0**-7, absolute=1e-30),))


@dataclass(frozen=True)
class Drawing:
    """How calls of an op are made, and the kinds of its rows and of what else it reads."""

    make: Callable[[Generator, Sequence[str], Sequence[str], int, ElementFormat], Case]
    rows: Sequence[str]
    others: Sequence[str] = ("",)
    fewest_others: int = 1


DRAWINGS = {
    "gemm_fp8_blockscale": Drawing(gemm_fp8_blockscale, QUANTIZED, list(CODES)),
    "linear_bf16": Drawing(linear_bf16, list(FLOATS), list(FLOATS)),
    "rms_norm_group_quant": Drawing(rms_norm_group_quant, list(FLOATS)),
    "add_rms_norm_group_quant": Drawing(add_rms_norm_group_quant, list(FLOATS), list(FLOATS)),
    "group_quant": Drawing(group_quant, list(FLOATS)),
    "silu_mul_group_quant": Drawing(silu_mul_group_quant, list(FLOATS)),
    "latent_norms_and_cache": Drawing(latent_norms_and_cache, list(FLOATS)),
    "q_absorb_rope_cat": Drawing(q_absorb_rope_cat, list(FLOATS)),
    "sparse_mla": Drawing(sparse_mla, list(CODES), list(CODES)),
    "value_up_group_quant": Drawing(value_up_group_quant, list(FLOATS), list(LOG_SUMS)),
    "router_topk": Drawing(router_topk, list(FLOATS), list(FLOATS)),
    "moe_gate_up": Drawing(moe_gate_up, QUANTIZED, list(CODES), 3),
    "moe_down": Drawing(moe_down, QUANTIZED, list(CODES), 3),
}
