"""`latent_norms_group_quant` against a loop over rows and groups."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.formats import ELEMENT_FORMATS
from predecode.custom_kernels.latent_norms_group_quant import OP, latent_norms_group_quant
from predecode.custom_kernels.layouts import GROUP_MAJOR_SCALES
from tests.custom_kernels.cases.case import mismatch
from tests.custom_kernels.cases.latent_norms_group_quant import cases
from tests.custom_kernels.reference_quantize import normalize_row, quantize_rows

ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)]


def brute(qkv_a, query_weight, latent_weight, query_epsilon, latent_epsilon, element_format):
    queries, latents = [], []
    for row in qkv_a.float().numpy():
        query, rest = row[: len(query_weight)], row[len(query_weight) :]
        queries.append(normalize_row(query, query_weight, query_epsilon))
        latents.append(normalize_row(rest[: len(latent_weight)], latent_weight, latent_epsilon))
    latent = torch.from_numpy(np.stack(latents)).to(qkv_a.dtype)
    return *quantize_rows(np.stack(queries), ELEMENT_FORMATS[element_format]), latent


def faults(given, expected, case):
    return [mismatch(g, e, rule) for g, e, rule in zip(given, expected, case.compare, strict=True)]


@pytest.mark.parametrize("case", ALL)
def test_equals_the_loop(case):
    assert faults(OP.overload(*case.arguments), brute(*case.arguments), case) == [None] * 3


@pytest.mark.parametrize("element_format", ["e4m3fn", "e4m3fnuz"])
def test_other_definitions_are_noticed(element_format):
    case = next(c for c in cases(ELEMENT_FORMATS[element_format]) if c.label == "epsilons far apart")
    qkv_a, query_weight, latent_weight, query_epsilon, latent_epsilon, name = case.arguments
    weights, epsilons = (query_weight, latent_weight), (query_epsilon, latent_epsilon)
    expected = brute(*case.arguments)
    assert any(faults(OP.overload(qkv_a, *weights, *epsilons[::-1], name), expected, case)), (
        "epsilons swapped"
    )
    shifted = OP.overload(qkv_a.roll(8, 1), *weights, *epsilons, name)
    assert all(faults(shifted, expected, case)), "parts read eight columns off"
    latent_first = torch.cat((qkv_a[:, 256:384], qkv_a[:, :256], qkv_a[:, 384:]), 1)
    assert all(faults(OP.overload(latent_first, *weights, *epsilons, name), expected, case)), "latent first"


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrapper_tells_the_layout_and_refuses_other_shapes():
    element_format = ELEMENT_FORMATS["e4m3fn"]
    qkv_a = torch.ones(3, 256 + 64 + 16, dtype=torch.bfloat16)
    query, latent = qkv_a[0, :256], qkv_a[0, :64]
    result, normed = latent_norms_group_quant(qkv_a, query, latent, 1e-6, 1e-5, element_format)
    assert result.layout == GROUP_MAJOR_SCALES and result.scales.shape == (2, 3)
    assert normed.shape == (3, 64) and normed.dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"query_weight has 192 columns"):
        latent_norms_group_quant(qkv_a, query[:192], latent, 1e-6, 1e-5, element_format)
    with pytest.raises(ValueError, match=r"300 columns for Q = 256 and L = 64"):
        latent_norms_group_quant(qkv_a[:, :300], query, latent, 1e-6, 1e-5, element_format)
    with pytest.raises(ValueError, match=r"latent_weight is torch.float32"):
        latent_norms_group_quant(qkv_a, query, latent.float(), 1e-6, 1e-5, element_format)
