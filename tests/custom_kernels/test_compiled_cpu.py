"""Every case of every op on the CPU against the op's reference: kernels called directly, and some through the compiler.

The runtime's workers flush denormal float32 to zero, so rows of denormals are only called directly.
"""

import iree.runtime as rt
import pytest

from predecode.custom_kernels.launch import KERNEL_FOLDER
from predecode.custom_kernels.targets import CPU
from tests.custom_kernels.cases.case import mismatches
from tests.custom_kernels.compiled_cases import SAME_BITS_AS_TWO, compile_cases, load, op_names, run_cases
from tests.custom_kernels.direct_call import call_kernel

THROUGH_THE_COMPILER = 4
"""Cases: what a module adds, operands, constants and buffers that are reused, is the same in all."""
NAMES = [*op_names(), *SAME_BITS_AS_TWO]
HAVE_KERNELS = [name for name in NAMES if (KERNEL_FOLDER / f"{name}.cpp").is_file()]


@pytest.mark.parametrize("name", HAVE_KERNELS)
def test_kernel_of(name):
    op, cases = load(name, CPU.element_format)
    faults = {
        case.label: mismatches(call_kernel(op, case.arguments), op.reference(*case.arguments), case) for case in cases
    }
    assert not {label: found for label, found in faults.items() if any(found)}


@pytest.mark.parametrize("name", NAMES)
def test_compiled_cases_of(name):
    op, cases = load(name, CPU.element_format)
    cases = [case for case in cases if case.label != "denormal"]
    if name in HAVE_KERNELS:
        cases = [*cases[: THROUGH_THE_COMPILER - 1], cases[-1]]
    vmfb = compile_cases(op, cases, CPU)
    faults = {case.label: fault for case, fault in run_cases(op, cases, vmfb, rt.get_device("local-sync")) if fault}
    assert not faults
