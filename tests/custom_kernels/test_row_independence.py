"""What an op computes for a row has the same bits from run to run, whatever the other rows are, in what order, how
many, and with padding rows among them: gfx942 machine code on the emulated device, and the CPU."""

import itertools

import pytest
import torch

from predecode.custom_kernels.targets import CPU, GFX942
from tests.custom_kernels.cases.case import Case
from tests.custom_kernels.compiled_cases import LoadedCases, compile_cases, device_of, load, op_names
from tests.custom_kernels.rows import LAYOUTS, PADDING, Rows

GATHER = "cp_gather_indexer_k_quant_cache"
SPLIT_K = {"add_normed_linear_split_k", "router_topk_split_k"}
"""Their rows lie in two places: see test_split_products.py."""
WITHOUT_ROWS = {"stream_read", GATHER, *SPLIT_K}


def selections(count: int) -> dict[str, list[int]]:
    """Of ``count`` rows, those that a call has: as many, one, or more than fit in a block of rows."""
    every = list(range(count))
    padded = [PADDING, count // 2, PADDING, PADDING, 0, count - 1]
    return {
        "all": every,
        "another order": torch.randperm(count, generator=torch.Generator().manual_seed(1)).tolist(),
        "padding between": padded + [PADDING] * (count - len(padded)),
        "one many times": [2] * (count - 2) + [0, 2],
        "alone": [count // 2],
        "the last alone": [count - 1],
        "beyond a block of rows": [*every, *[1] * (65 - count), *every],
    }


def test_every_op_has_its_rows():
    assert set(LAYOUTS) == set(op_names()) - WITHOUT_ROWS


both = pytest.mark.parametrize("target", [CPU, GFX942], ids=lambda t: t.name)


@both
@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_do_not_see_each_other(name, target):
    rows = Rows(name, target.element_format)
    chosen = selections(rows.count)
    of_counts = {len(selection): Case("", rows.arguments(selection), ()) for selection in chosen.values()}
    loaded = LoadedCases(compile_cases(rows.op, list(of_counts.values()), target), device_of(target))

    def run(selection):
        results = loaded.run(list(of_counts).index(len(selection)), rows.arguments(selection))
        return rows.results(selection, results)

    every = run(chosen["all"])
    assert run(chosen["all"]) == every, "from run to run"
    assert len(set(every)) > rows.count * 3 // 4, "rows that are alike show nothing"
    for label, selection in chosen.items():
        for row, given in zip(selection, run(selection), strict=True):
            assert given is None or given == every[row], (label, row)


@both
def test_gathered_sequences_do_not_see_each_other(target):
    op, cases = load(GATHER, target.element_format)
    (case,) = (case for case in cases if case.label == "63, 64 and 65 tokens")
    cache, table, ends, _, *formats = case.arguments
    lengths = ends.diff()
    chosen = [[0, 1, 2], [2, 0, 1], [1], [2], [0, 0, 2, 0]]
    arguments = []
    for selection in chosen:
        ends = torch.tensor([0, *lengths[selection].cumsum(0)], dtype=torch.int32)
        arguments.append((cache, table[selection], ends, int(ends[-1]), *formats))
    loaded = LoadedCases(compile_cases(op, [Case("", given, ()) for given in arguments], target), device_of(target))

    def run(index):
        keys, scales = loaded.run(index, arguments[index])
        starts = arguments[index][2].tolist()
        return [(keys[a:b].tobytes(), scales[a:b].tobytes()) for a, b in itertools.pairwise(starts)]

    every = run(0)
    assert run(0) == every and len(set(every)) == 3
    for index, selection in enumerate(chosen):
        assert run(index) == [every[sequence] for sequence in selection], selection
