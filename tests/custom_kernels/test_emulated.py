"""Every kernel's gfx942 and gfx950 machine code on the emulated device, in strict mode, against the op's reference.

The cases are dealt to the two chips in turn, to keep this short; true model sizes are left out.
`device_check run --device emulated` runs them all.
"""

import pytest

from predecode.custom_kernels.targets import GFX942, GFX950
from predecode.pipelines import emulation
from tests.custom_kernels.compiled_cases import compile_cases, load, op_names, run_cases, tensors_of

MOST_BYTES = 2**19


@pytest.mark.parametrize(("target", "first"), [(GFX942, 0), (GFX950, 1)], ids=["gfx942", "gfx950"])
@pytest.mark.parametrize("name", op_names())
def test_cases_of(name, target, first):
    op, cases = load(name, target.element_format)
    cases = [case for case in cases if sum(tensor.nbytes for tensor in tensors_of(case)) <= MOST_BYTES]
    cases = cases[first::2]
    assert len(cases) >= 2
    vmfb = compile_cases(op, cases, target)
    device = emulation.open_device(target.arch, strict=True)
    try:
        faults = {case.label: fault for case, fault in run_cases(op, cases, vmfb, device) if fault}
    except Exception as error:
        raise emulation.pending_fault() or error from None
    assert not faults
