"""`paged_mqa_logits` against a loop over rows, tokens and page bytes."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.composition import Composition
from predecode.custom_kernels.formats import ELEMENT_FORMATS
from predecode.custom_kernels.launch_check import check_launch
from predecode.custom_kernels.layouts import PAGE_TOKENS, PLAIN_PAGE, PRESHUFFLED_PAGE, LayoutError
from predecode.custom_kernels.occupancy import occupancy
from predecode.custom_kernels.op import Call
from predecode.custom_kernels.paged_mqa_logits import OP, THREADS, WORKGROUPS_PER_UNIT, paged_mqa_logits
from predecode.custom_kernels.targets import GFX942, GFX950, SM_90
from predecode.custom_kernels.toolchain import Toolchain
from predecode.custom_kernels.values import IndexerCache
from tests.custom_kernels.cases.case import mismatch
from tests.custom_kernels.cases.paged_mqa_logits import cases
from tests.custom_kernels.reference_formats import decode

NAMES = ("query", "weights", "cache", "block_table", "lengths", "topk")
ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)]


def cached_key(cache: torch.Tensor, page: int, token: int, dtype: torch.dtype) -> tuple[np.ndarray, float]:
    """Key (float64 [128]) and scale of a token: tiles of 16 tokens x 16 columns, then the page's scales."""
    size = dtype.itemsize
    offsets = [token // 16 * 2048 + d // 16 * 256 + token % 16 * 16 + d % 16 for d in range(128)]
    keys = cache[page, : 64 * 128 * size].view(dtype)[torch.tensor(offsets)]
    scale = cache[page, 64 * 128 * size :].view(torch.float32)[token]
    return decode(keys), float(scale)


def brute(query, weights, cache, block_table, lengths, topk) -> torch.Tensor:
    logits = np.full((len(query), block_table.shape[1] * 64), -np.inf)
    queries = decode(query)
    for row, length in enumerate(lengths.tolist()):
        for position in range(length if length > topk else 0):
            page = int(block_table[row, position // 64])
            key, scale = cached_key(cache, page, position % 64, query.dtype)
            products = np.maximum(queries[row] @ key * scale, 0.0)
            logits[row, position] = products @ weights[row].double().numpy()
    return torch.from_numpy(logits).float()


@pytest.mark.parametrize("case", ALL)
def test_equals_the_loop(case):
    result, expected = OP.overload(*case.arguments), brute(*case.arguments)
    assert mismatch(result, expected, case.compare[0]) is None
    outside = ~case.compare[0].region
    assert torch.equal(result[outside], expected[outside])  # -inf, whatever the cache holds there


@pytest.mark.parametrize("element_format", ["e4m3fn", "e4m3fnuz"])
def test_other_layouts_are_noticed(element_format):
    case = next(c for c in cases(ELEMENT_FORMATS[element_format]) if c.label == "pages backwards")
    _, weights, cache, table, lengths, _ = case.arguments
    expected = brute(*case.arguments)
    plain = cache.clone()
    plain[:, :8192] = cache[:, :8192].reshape(-1, 4, 8, 16, 16).transpose(2, 3).reshape(-1, 8192)
    right = dict(zip(NAMES, case.arguments, strict=True))
    wrong = {
        "plain page": {"cache": plain},
        "pages forwards": {"block_table": table.flip(1)},
        "scales a token off": {"cache": torch.cat((cache[:, :8192], cache[:, 8192:].roll(4, 1)), 1)},
        "a token too few": {"lengths": lengths - 1},
        "heads in another order": {"weights": weights.flip(1)},
        "a row left out": {"topk": 301},
    }
    for label, changed in wrong.items():
        assert mismatch(OP.overload(*(right | changed).values()), expected, case.compare[0]), label


@pytest.mark.parametrize("target", [GFX942, GFX950, SM_90], ids=lambda target: target.name)
@pytest.mark.parametrize("heads", [16, 32, 48, 64])
@pytest.mark.parametrize("rows", [1, 300])
def test_launch_fits_as_often_as_it_counts_on(rows, heads, target):
    shapes = {"query": (rows, heads, 128), "weights": (rows, heads), "cache": (9, 132 * PAGE_TOKENS)}
    shapes |= {"block_table": (rows, 5), "lengths": (rows,)}
    call = Call({n: torch.empty(s, device="meta") for n, s in shapes.items()} | {"topk": 2048}, ())
    launch = OP.launch_on(target, call)
    composition = Composition.of(launch, pointers=6)
    kernel = check_launch(Toolchain().build(composition, target), composition, target)
    at_once = occupancy(kernel, THREADS // target.wave_size, target).workgroups_per_compute_unit
    assert at_once >= WORKGROUPS_PER_UNIT


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrapper_refuses_other_layouts_and_shapes():
    query, weights, data, table, lengths, _ = cases(ELEMENT_FORMATS["e4m3fn"])[0].arguments
    cache = IndexerCache(data, PRESHUFFLED_PAGE)
    assert paged_mqa_logits(query, weights, cache, table, lengths, 0).shape == (1, 64)
    with pytest.raises(LayoutError, match=r"preshuffled page.*plain page"):
        paged_mqa_logits(query, weights, IndexerCache(data, PLAIN_PAGE), table, lengths, 0)
    with pytest.raises(ValueError, match="multiple of 16"):
        paged_mqa_logits(query[:, :8], weights[:, :8], cache, table, lengths, 0)
    with pytest.raises(ValueError, match="cache is"):
        paged_mqa_logits(query, weights, IndexerCache(data[:, :-4], PRESHUFFLED_PAGE), table, lengths, 0)
    with pytest.raises(ValueError, match="lengths is"):
        paged_mqa_logits(query, weights, cache, table, lengths.long(), 0)
