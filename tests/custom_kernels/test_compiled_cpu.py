"""Every case of every op through the compiler, on the CPU, against the op's reference.

The runtime's workers flush denormal float32 to zero, so rows of denormals are left out here.
"""

import iree.runtime as rt
import pytest

from predecode.custom_kernels.targets import CPU
from tests.custom_kernels.compiled_cases import compile_cases, load, op_names, run_cases


@pytest.mark.parametrize("name", op_names())
def test_cases_of(name):
    op, cases = load(name, CPU.element_format)
    cases = [case for case in cases if case.label != "denormal"]
    vmfb = compile_cases(op, cases, CPU)
    faults = {
        case.label: fault for case, fault in run_cases(op, cases, vmfb, rt.get_device("local-sync")) if fault
    }
    assert not faults
