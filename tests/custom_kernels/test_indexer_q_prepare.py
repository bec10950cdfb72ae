"""`indexer_q_prepare` against a loop over rows and heads."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.formats import E4M3FN, E4M3FNUZ, ELEMENT_FORMATS
from predecode.custom_kernels.indexer_q_prepare import OP, indexer_q_prepare
from tests.custom_kernels.cases.case import mismatch, mismatches
from tests.custom_kernels.cases.indexer_q_prepare import cases
from tests.custom_kernels.reference_indexer import quantize_head
from tests.custom_kernels.reference_rotation import turn_head

ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)]
QUERY_MAXIMUM = {"e4m3fn": 448.0, "e4m3fnuz": 224.0, "float32": np.inf}


def brute(q, gates, table, positions, layout, element_format, maximum=None):
    stored = ELEMENT_FORMATS[element_format]
    rows, heads = gates.shape
    values = torch.empty(rows, heads, 128, dtype=stored.dtype)
    weights = torch.empty(rows, heads)
    for row in range(rows):
        for head in range(heads):
            numbers = q[row, 128 * head : 128 * head + 128].float().numpy()
            turned = turn_head(numbers, table[positions[row]].numpy(), layout, q.dtype)
            limit = maximum or QUERY_MAXIMUM[element_format]
            values[row, head], scale = quantize_head(turned, limit, "ue8m0", stored)
            weights[row, head] = float(gates[row, head]) * heads**-0.5 * float(scale) * 128**-0.5
    return values, weights


@pytest.mark.parametrize("case", ALL)
def test_equals_the_loop(case):
    assert mismatches(OP.overload(*case.arguments), brute(*case.arguments), case) == [None, None]


@pytest.mark.parametrize("element_format", [E4M3FN, E4M3FNUZ], ids=lambda f: f.name)
def test_other_definitions_are_noticed(element_format):
    case = next(c for c in cases(element_format) if c.label == "GLM-5.1, 4 rows")
    q, gates, table, positions, _, name = case.arguments
    expected = brute(*case.arguments)
    other_format = (E4M3FNUZ if element_format is E4M3FN else E4M3FN).name
    wrong = {
        "halves": (q, gates, table, positions, "halves", name),
        "rope dims last": (q.reshape(4, 32, 128).roll(64, 2).reshape(q.shape), gates, *case.arguments[2:]),
        "heads in another order": (q, gates.flip(1), *case.arguments[2:]),
    }
    for label, arguments in wrong.items():
        assert any(mismatches(OP.overload(*arguments), expected, case)), label
    in_other_format = OP.overload(q, gates, table, positions, "interleaved", other_format)
    assert mismatch(in_other_format[1], expected[1], case.compare[1]), "the other format's maximum"
    if element_format is E4M3FNUZ:
        assert any(mismatches(brute(*case.arguments, maximum=240.0), expected, case)), "the key's maximum"


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrapper_refuses_other_shapes():
    q, gates, table, positions, layout, _ = cases(E4M3FN)[0].arguments
    values, weights = indexer_q_prepare(q, gates, table, positions, layout, E4M3FN)
    assert values.shape == (1, 32, 128) and weights.shape == (1, 32)
    with pytest.raises(ValueError, match="gates"):
        indexer_q_prepare(q, gates[:, :16], table, positions, layout, E4M3FN)
    with pytest.raises(ValueError, match=r"gates torch\.bfloat16"):
        indexer_q_prepare(q, gates.bfloat16(), table, positions, layout, E4M3FN)
    with pytest.raises(ValueError, match="positions, 64"):
        indexer_q_prepare(q, gates, table[:, :32], positions, layout, E4M3FN)
