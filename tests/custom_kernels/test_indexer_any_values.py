"""Drawn lengths and values through one compiled module of an op: gfx942 machine code on the emulated device."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from predecode.custom_kernels.op import OPS
from predecode.custom_kernels.targets import GFX942
from predecode.pipelines import emulation
from tests.custom_kernels.cases.block_scaled import elements
from tests.custom_kernels.cases.case import EXACT, Case, Comparison, mismatch
from tests.custom_kernels.cases.paged_mqa_logits import poisoned, random_pages
from tests.custom_kernels.compiled_cases import LoadedCases, compile_cases, load

FEW = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ROWS, PAGES, TOPK = 3, 256, 300
LENGTH = PAGES * 64
KINDS = {
    "normal": lambda g: torch.randn(LENGTH, generator=g),
    "heavy tails": lambda g: torch.randn(LENGTH, generator=g) / torch.randn(LENGTH, generator=g).abs(),
    "few values": lambda g: torch.randn(LENGTH, generator=g).round(decimals=1),
    "two values": lambda g: torch.randint(0, 2, (LENGTH,), generator=g).float(),
    "any size": lambda g: torch.randn(LENGTH, generator=g) * torch.exp2(120 * torch.randn(LENGTH, generator=g)),
    "ascending": lambda g: torch.arange(LENGTH, dtype=torch.float32),
    "descending": lambda g: -torch.arange(LENGTH, dtype=torch.float32),
    "in blocks": lambda g: (torch.randn(PAGES, 1, generator=g) + torch.rand(PAGES, 64, generator=g)).flatten(),
    "bits": lambda g: torch.randint(-(2**31), 2**31, (LENGTH,), generator=g).to(torch.int32).view(torch.float32),
}


def compiled(name: str, arguments: tuple) -> Callable[..., np.ndarray]:
    """``name`` compiled for ``arguments``' shapes and scalars; takes all arguments."""
    vmfb = compile_cases(OPS[name], [Case(name, arguments, ())], GFX942)
    loaded = LoadedCases(vmfb, emulation.open_device(GFX942.arch, strict=False))
    return lambda *given_arguments: loaded.run(0, given_arguments)[0]


@pytest.fixture(scope="module")
def topk_slots():
    load("topk_slots", GFX942.element_format)
    table = torch.randint(0, 2**20, (ROWS, PAGES), dtype=torch.int32)
    return compiled("topk_slots", (torch.zeros(ROWS, LENGTH), torch.zeros(ROWS, dtype=torch.int32), table, TOPK)), table


@FEW
@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=ROWS, max_size=ROWS),
    lengths=st.lists(st.integers(0, LENGTH) | st.sampled_from([8192, 8193, LENGTH]), min_size=ROWS, max_size=ROWS),
    seed=st.integers(0, 2**31),
)
def test_topk_slots(topk_slots, kinds, lengths, seed):
    run, table = topk_slots
    generator = torch.Generator().manual_seed(seed)
    logits = torch.stack([KINDS[kind](generator) for kind in kinds])
    arguments = logits, torch.tensor(lengths, dtype=torch.int32), table, TOPK
    expected = OPS["topk_slots"].reference(*arguments)
    assert mismatch(torch.from_numpy(run(*arguments)), expected, EXACT) is None


@pytest.fixture(scope="module")
def paged_mqa_logits():
    load("paged_mqa_logits", GFX942.element_format)
    generator = torch.Generator().manual_seed(3)
    query = elements(generator, (5, 32, 128), GFX942.element_format)
    weights, cache = torch.randn(5, 32, generator=generator), random_pages(generator, 60, GFX942.element_format)
    tensors = query, weights, cache, torch.randperm(60, generator=generator).reshape(5, 12).int()
    return compiled("paged_mqa_logits", (*tensors, torch.zeros(5, dtype=torch.int32), 66)), tensors


@FEW
@given(lengths=st.lists(st.integers(0, 12 * 64), min_size=5, max_size=5))
def test_paged_mqa_logits(paged_mqa_logits, lengths):
    run, (query, weights, cache, table) = paged_mqa_logits
    cache = poisoned(cache, table, lengths, GFX942.element_format)
    lengths = torch.tensor(lengths, dtype=torch.int32)
    arguments = query, weights, cache, table, lengths, 66
    expected = OPS["paged_mqa_logits"].reference(*arguments)
    rule = Comparison(relative=1e-4, absolute=1e-30, region=expected != float("-inf"))
    assert mismatch(torch.from_numpy(run(*arguments)), expected, rule) is None
