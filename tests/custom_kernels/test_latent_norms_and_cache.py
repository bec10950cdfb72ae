"""`latent_norms_and_cache` against a loop over rows, groups and cache bytes."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.formats import E4M3FN, E4M3FNUZ, ELEMENT_FORMATS
from predecode.custom_kernels.latent_norms_and_cache import OP, latent_norms_and_cache
from predecode.custom_kernels.layouts import GROUP_MAJOR_SCALES
from predecode.custom_kernels.op import Call
from predecode.custom_kernels.targets import GFX942, SM_90
from predecode.custom_kernels.values import LatentCache
from tests.custom_kernels.cases.case import EXACT, mismatch, mismatches
from tests.custom_kernels.cases.latent_norms_and_cache import cases
from tests.custom_kernels.reference_quantize import encode, normalize_row, quantize_rows
from tests.custom_kernels.reference_rotation import as_rounded, rotate_head

ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)]


def brute(
    qkv_a, query_weight, latent_weight, table, positions, cache, slots, query_epsilon, latent_epsilon, layout, name
):
    element_format = ELEMENT_FORMATS[name]
    query_dim, latent_dim = len(query_weight), len(latent_weight)
    keys = cache.clone().reshape(-1, (latent_dim + table.shape[1]) * element_format.itemsize)
    queries = []
    for row, numbers in enumerate(qkv_a.float().numpy()):
        queries.append(normalize_row(numbers[:query_dim], query_weight, query_epsilon))
        if slots[row] < 0:
            continue
        latent = normalize_row(numbers[query_dim : query_dim + latent_dim], latent_weight, latent_epsilon)
        rope = rotate_head(numbers[query_dim + latent_dim :], table[positions[row]].numpy(), layout, first=0)
        key = as_rounded(np.concatenate((latent, rope)), qkv_a.dtype)
        keys[slots[row]] = encode(key, element_format).view(torch.int8)
    return *quantize_rows(np.stack(queries), element_format), keys.reshape(cache.shape)


@pytest.mark.parametrize("case", ALL)
def test_equals_the_loop(case):
    expected = brute(*case.arguments)
    before = case.arguments[5].clone()
    values, scales, cache = OP.overload(*case.arguments)
    if not ELEMENT_FORMATS[case.arguments[-1]].is_quantized:
        # The last bit of a norm may be seen.
        cache, expected = cache.view(torch.float32), (*expected[:2], expected[2].view(torch.float32))
        torch.testing.assert_close(cache, expected[2], rtol=1e-5, atol=1e-30, equal_nan=True)
        assert mismatches((values, scales, cache), (*expected[:2], cache), case) == [None] * 3
    else:
        assert mismatches((values, scales, cache), expected, case) == [None] * 3
    assert torch.equal(case.arguments[5], before), "the op is functional: its argument stays"


@pytest.mark.parametrize("element_format", [E4M3FN, E4M3FNUZ], ids=lambda f: f.name)
def test_other_definitions_are_noticed(element_format):
    case = next(c for c in cases(element_format) if c.label == "65 rows")
    arguments = dict(zip((a.name for a in OP.overload._schema.arguments), case.arguments, strict=True))
    qkv_a, _, latent_weight, table, positions, cache, slots, *_ = case.arguments
    expected = brute(*case.arguments)
    latent_first = torch.cat((qkv_a[:, 256:320], qkv_a[:, :256], qkv_a[:, 320:]), 1)
    wrong_query = {
        "latent first": {"qkv_a": latent_first},
        "parts eight columns off": {"qkv_a": qkv_a.roll(8, 1)},
    }
    wrong_key = {
        "latent first": {"qkv_a": latent_first},
        "a page off": {"slot_mapping": torch.where(slots < 0, slots, (slots + 64) % (64 * len(cache)))},
        "padding rows written": {"slot_mapping": torch.where(slots < 0, 0, slots)},
        "another epsilon": {"latent_epsilon": 1e5},
        "weights in another order": {"latent_weight": latent_weight.flip(0)},
        "halves": {"rope_layout": "halves"},
        "sines before cosines": {"rope_table": table.roll(32, 1)},
        "a position off": {"positions": positions.roll(1)},
        "the other FP8 format": {"element_format": (E4M3FNUZ if element_format is E4M3FN else E4M3FN).name},
    }
    wrong_scale = {"another epsilon": {"query_epsilon": 1e4}}
    for result, wrong in ((0, wrong_query), (1, wrong_scale), (2, wrong_key)):
        for label, change in wrong.items():
            given = OP.overload(*(arguments | change).values())
            assert mismatches((given[0].view(element_format.dtype), *given[1:]), expected, case)[result], label


def test_untouched_bytes_stay():
    case = next(c for c in cases(E4M3FN) if c.label == "page edges and padding")
    written = torch.zeros(3 * 64, dtype=torch.bool)
    slots = case.arguments[6]
    written[slots[slots >= 0]] = True
    given = OP.overload(*case.arguments)[2].reshape(3 * 64, -1)
    assert mismatch(given[~written], case.arguments[5].reshape(given.shape)[~written], EXACT) is None


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrapper_tells_the_layout_and_refuses_other_shapes():
    case = next(c for c in cases(E4M3FN) if c.label == "65 rows")
    qkv_a, query, latent, table, positions, data, slots, *rest, _ = case.arguments
    cache, rest = LatentCache(data), (*rest, E4M3FN)
    result, written = latent_norms_and_cache(qkv_a, query, latent, table, positions, cache, slots, *rest)
    assert result.layout == GROUP_MAJOR_SCALES and result.scales.shape == (2, 65)
    assert written.data.shape == data.shape
    with pytest.raises(ValueError, match=r"query_weight has 192 columns"):
        latent_norms_and_cache(qkv_a, query[:192], latent, table, positions, cache, slots, *rest)
    with pytest.raises(ValueError, match=r"qkv_a has 376 columns for Q = 256, L = 64 and R = 64"):
        latent_norms_and_cache(qkv_a[:, :376], query, latent, table, positions, cache, slots, *rest)
    with pytest.raises(ValueError, match=r"latent_weight is torch.float32"):
        latent_norms_and_cache(qkv_a, query, latent.float(), table, positions, cache, slots, *rest)
    with pytest.raises(ValueError, match=r"pages of 64 tokens of 64 \+ 64 elements in e4m3fn"):
        short = LatentCache(data[:, 1:])
        latent_norms_and_cache(qkv_a, query, latent, table, positions, short, slots, *rest)
    with pytest.raises(ValueError, match="neox"):
        latent_norms_and_cache(qkv_a, query, latent, table, positions, cache, slots, *rest[:2], "neox", E4M3FN)
    with pytest.raises(ValueError, match="positions"):
        latent_norms_and_cache(qkv_a, query, latent, table, positions.int(), cache, slots, *rest)


@pytest.mark.parametrize(("target", "rows", "workgroups"), [(SM_90, 32, 32), (SM_90, 33, 17), (GFX942, 33, 33)])
def test_two_of_many_rows_share_a_workgroup_where_a_product_waits_beside_it(target, rows, workgroups):
    case = next(c for c in cases(target.element_format) if c.label == "GLM-5.1")
    names = [argument.name for argument in OP.overload._schema.arguments]
    arguments = dict(zip(names, case.arguments, strict=True))
    arguments["qkv_a"] = arguments["qkv_a"].new_empty((rows, arguments["qkv_a"].shape[1]))
    launch = OP.launch_on(target, Call(arguments, ()))
    assert launch.workgroups == (workgroups, 2, 1)
    assert dict(launch.defines)["ROWS_EACH"] * workgroups >= rows
