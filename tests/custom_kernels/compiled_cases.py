"""Compiles the cases of an op into one module for a target, and runs it through the IREE runtime."""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import iree.runtime as rt
import numpy as np
import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.launch import KERNEL_FOLDER
from predecode.custom_kernels.op import OPS, Op
from predecode.custom_kernels.targets import Target
from predecode.export.tensors import to_numpy
from tests.custom_kernels.cases.case import Case, mismatch

CASE_FOLDER = Path(__file__).parent / "cases"


def op_names() -> list[str]:
    """Ops that have cases."""
    return sorted(
        path.stem for path in CASE_FOLDER.glob("*.py") if (KERNEL_FOLDER / f"{path.stem}.hip").is_file()
    )


def load(name: str, element_format: ElementFormat) -> tuple[Op, list[Case]]:
    """The op called ``name`` and its cases."""
    importlib.import_module(f"predecode.custom_kernels.{name}")
    cases = importlib.import_module(f"tests.custom_kernels.cases.{name}").cases(element_format)
    return OPS[name], cases


class OpCall(torch.nn.Module):
    """An op with its scalars fixed; takes the tensors."""

    def __init__(self, op: Op, arguments: Sequence):
        super().__init__()
        self.op, self.arguments = op, arguments

    def forward(self, *tensors):
        given = iter(tensors)
        return self.op.overload(*(next(given) if isinstance(a, torch.Tensor) else a for a in self.arguments))


def tensors_of(case: Case) -> tuple[torch.Tensor, ...]:
    """The tensor arguments of ``case``, in order."""
    return tuple(a for a in case.arguments if isinstance(a, torch.Tensor))


def compile_cases(op: Op, cases: Sequence[Case], target: Target) -> bytes:
    """One module with an entry point ``case_<i>`` per case."""
    from predecode.custom_kernels.toolchain import Toolchain
    from predecode.export.compile import compile_module
    from predecode.export.inject import inject
    from predecode.export.trace import Program, trace

    programs = [
        Program(f"case_{i}", OpCall(op, case.arguments), tensors_of(case)) for i, case in enumerate(cases)
    ]
    module = trace(programs, target, lambda name: None)
    kernels = inject(module, target, Toolchain()).kernels
    return compile_module(module, kernels, target, Toolchain()).vmfb


def run_cases(
    op: Op, cases: Sequence[Case], vmfb: bytes, device: rt.HalDevice
) -> Iterator[tuple[Case, str | None]]:
    """Each case with None, or the first mismatch of its results against the op's reference."""
    config = rt.Config(device=device)
    module = rt.load_vm_module(rt.VmModule.copy_buffer(config.vm_instance, vmfb), config)
    for i, case in enumerate(cases):
        expected = op.reference(*case.arguments)
        expected = expected if isinstance(expected, tuple) else (expected,)
        buffers = [rt.asdevicearray(device, to_numpy(tensor)) for tensor in tensors_of(case)]
        results = module[f"case_{i}"](*buffers)
        results = results if isinstance(results, tuple) else (results,)
        yield case, _first_mismatch(case, results, expected)


def _first_mismatch(case: Case, results, expected) -> str | None:
    for i, (given, wanted, rule) in enumerate(zip(results, expected, case.compare, strict=True)):
        array = np.array(given.to_host())  # a copy: the buffer is the device's
        given_tensor = (
            torch.from_numpy(array.view(np.uint8).reshape(-1)).view(wanted.dtype).reshape(wanted.shape)
        )
        fault = mismatch(given_tensor, wanted, rule)
        if fault:
            return f"result {i}: {fault}"
    return None
