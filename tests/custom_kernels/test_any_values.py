"""Drawn shapes and values: zeros, denormals, every FP8 code, huge and tiny scales, equal scores, NaN, in one call.

The CPU's kernels are called directly, with many draws; gfx942 and gfx950 machine code on the emulated device runs one
call with a row of every kind.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from predecode.custom_kernels.targets import CPU, GFX942, GFX950
from tests.custom_kernels.any_values import DRAWINGS
from tests.custom_kernels.cases.case import mismatches
from tests.custom_kernels.compiled_cases import compile_cases, device_of, op_called, run_cases
from tests.custom_kernels.direct_call import call_kernel

ROWS = 65


@pytest.mark.parametrize("name", DRAWINGS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_cpu_kernel_of(name, data):
    op = op_called(name)
    drawing = DRAWINGS[name]
    kinds = st.sampled_from(drawing.rows)
    rows = data.draw(st.lists(kinds, min_size=1, max_size=20) | st.lists(kinds, min_size=ROWS, max_size=ROWS), "rows")
    other_kinds = st.sampled_from(drawing.others)
    others = data.draw(st.lists(other_kinds, min_size=drawing.fewest_others, max_size=12), "others")
    size, seed = data.draw(st.integers(0, 1), "size"), data.draw(st.integers(0, 2**31), "seed")
    case = drawing.make(torch.Generator().manual_seed(seed), rows, others, size, CPU.element_format)
    faults = mismatches(call_kernel(op, case.arguments), op.reference(*case.arguments), case)
    assert not any(faults)


@pytest.mark.parametrize(
    ("name", "target"),
    [(name, (GFX942, GFX950)[i % 2]) for i, name in enumerate(DRAWINGS)],
    ids=lambda v: getattr(v, "name", v),
)
def test_machine_code_of(name, target):
    op = op_called(name)
    drawing = DRAWINGS[name]
    others = [*drawing.others, *drawing.others][: max(len(drawing.others), drawing.fewest_others)]
    case = drawing.make(torch.Generator().manual_seed(4), drawing.rows, others, 1, target.element_format)
    faults = [fault for _, fault in run_cases(op, [case], compile_cases(op, [case], target), device_of(target))]
    assert faults == [None]
