"""Sums over ranks, on emulated devices in as many processes, which send each other what they have."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels import all_reduce
from predecode.custom_kernels.composition import Composition
from predecode.custom_kernels.launch_check import check_launch
from predecode.custom_kernels.targets import SM_90, TARGETS
from predecode.custom_kernels.toolchain import Toolchain
from predecode.export.trace import describe_call
from predecode.pipelines import emulation
from predecode.pipelines.device import EMULATED
from predecode.pipelines.mailbox_table import table_shape
from tests.custom_kernels.cases.case import EXACT, Case
from tests.custom_kernels.compiled_cases import LoadedCases, compile_cases
from tests.custom_kernels.summing_ranks import (
    ONE_SHOT,
    SMALL_SIZES,
    TWO_SHOTS,
    compiled,
    expected_sum,
    first_mismatch,
    random_partials,
    sums_of_ranks,
)


@pytest.mark.parametrize("number", range(len(SMALL_SIZES)), ids=map(str, SMALL_SIZES))
def test_every_rank_has_the_sum(number, tmp_path):
    size, target = SMALL_SIZES[number], ("gfx942", "gfx950")[number % 2]
    partials = random_partials(size)
    sums = sums_of_ranks(compiled(tmp_path / "module.vmfb", target, size), target, EMULATED, partials)
    expected = expected_sum(partials, range(size.ranks))
    assert first_mismatch(sums, expected) is None
    assert np.isnan(expected.astype(np.float32)).sum() == 4
    sums[1][-1, -1, -1] ^= 1
    assert first_mismatch(sums, expected).startswith("rank 1 has 1 wrong sums, first in call 4")
    if size.ranks > 2:
        assert first_mismatch(sums, expected_sum(partials, [*range(1, size.ranks), 0])), "the order shows"


@pytest.mark.parametrize("limit", [ONE_SHOT, TWO_SHOTS])
def test_a_rank_alone_keeps_its_sums(limit, monkeypatch):
    monkeypatch.setattr(all_reduce, "_MOST_ONE_SHOT_BYTES", limit)
    partial, nobody = torch.randn(5, 384).bfloat16(), torch.zeros(table_shape(3), dtype=torch.int64)
    case = Case("", (partial, nobody, 1, 0), (EXACT,))
    vmfb = compile_cases(all_reduce.OP, [case], TARGETS["gfx950"])
    (given,) = LoadedCases(vmfb, emulation.open_device("gfx950", strict=True)).run(0, case.arguments)
    expected = all_reduce.OP.reference(*case.arguments)
    assert given.tobytes() == expected.view(torch.int16).numpy().tobytes()


def launch(shape, ranks, target=SM_90):
    arguments = torch.empty(shape, dtype=torch.bfloat16), torch.zeros(table_shape(ranks), dtype=torch.int64), 1, 0
    return all_reduce.OP.launch_on(target, describe_call(all_reduce.OP, arguments, arguments[0]))


def test_two_shots_where_one_would_send_much_more():
    """GLM-5.1's hidden size; two ranks send as much in two shots as in one."""
    used = {(rows, ranks): launch((rows, 6144), ranks).source for rows in (1, 4, 16, 64) for ranks in (2, 8)}
    in_two = {size for size, source in used.items() if source == "all_reduce_two_shot.hip"}
    assert in_two == {(16, 8), (64, 8)}
    assert launch((64, 6152), 7).source == "all_reduce.hip", "slices would differ"


@pytest.mark.parametrize("rows", [4, 64])
def test_the_nvidia_kernels_assemble(rows):
    composition = Composition.of(launch((rows, 6144), 8), 3)
    check_launch(Toolchain().build(composition, SM_90), composition, SM_90)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"partial": torch.zeros(4, 128)}, r"partial is torch.float32 \[4, 128\], expected torch.bfloat16"),
        ({"partial": torch.zeros(4, 12, dtype=torch.bfloat16)}, "12 columns, expected a multiple of 8"),
        ({"mailboxes": torch.zeros(2, 3, dtype=torch.int64)}, r"mailboxes is torch.int64 \[2, 3\], expected"),
        ({"mailboxes": torch.zeros(2, 2, 1, dtype=torch.int64), "rank": 0}, "rank 0 of 1"),
        ({"rank": 2}, "rank 2 of 2"),
        ({"turn": 2}, "turn 2, expected 0 to 1"),
    ],
)
def test_refusals(change, message):
    given = {
        "partial": torch.zeros(4, 128, dtype=torch.bfloat16),
        "mailboxes": torch.zeros(table_shape(2), dtype=torch.int64),
        "rank": 0,
        "turn": 0,
    }
    all_reduce.all_reduce(**given)
    with pytest.raises(ValueError, match=message):
        all_reduce.all_reduce(**(given | change))
