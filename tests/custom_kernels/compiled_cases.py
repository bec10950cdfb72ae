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
from predecode.pipelines.emulation import open_device
from tests.custom_kernels.cases.case import Case, mismatches

CASE_FOLDER = Path(__file__).parent / "cases"


NVIDIA_ONLY = frozenset(
    f"{normed}_{product}" for normed in ("normed", "add_normed") for product in ("gemm_fp8_blockscale", "linear_bf16")
)
"""Ops whose kernels need clusters of workgroups: only a real device runs their cases (see device_check)."""


SAME_BITS_AS_TWO = frozenset(("indexer_q_prepare_and_logits",))
"""Ops whose kernels are compared with those of two others, bit by bit, in a test of their own."""


def op_names() -> list[str]:
    """Ops that have cases, and kernels for every GPU that are tested by themselves."""
    return sorted(every_op_name() - NVIDIA_ONLY - SAME_BITS_AS_TWO)


def every_op_name() -> set[str]:
    """Ops that have cases."""
    return {path.stem for path in CASE_FOLDER.glob("*.py") if (KERNEL_FOLDER / f"{path.stem}.hip").is_file()}


def op_called(name: str) -> Op:
    """The op called ``name``."""
    importlib.import_module(f"predecode.custom_kernels.{name}")
    return OPS[name]


def load(name: str, element_format: ElementFormat) -> tuple[Op, list[Case]]:
    """The op called ``name`` and its cases."""
    return op_called(name), importlib.import_module(f"tests.custom_kernels.cases.{name}").cases(element_format)


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

    programs = [Program(f"case_{i}", OpCall(op, case.arguments), tensors_of(case)) for i, case in enumerate(cases)]
    module = trace(programs, target, lambda name: None)
    kernels = inject(module, target, Toolchain()).kernels
    return compile_module(module, kernels, target, Toolchain()).vmfb


def device_of(target: Target) -> rt.HalDevice:
    """Where tests run ``target``: an emulated device in strict mode, or this machine."""
    return open_device(target.arch, strict=True) if target.has_hip_kernels else rt.get_device("local-sync")


class LoadedCases:
    """A module of `compile_cases` on a device: its entry points, called with any values of the cases' shapes."""

    def __init__(self, vmfb: bytes, device: rt.HalDevice):
        config = rt.Config(device=device)
        self.device = device
        self._module = rt.load_vm_module(rt.VmModule.copy_buffer(config.vm_instance, vmfb), config)

    def run(self, index: int, arguments: Sequence) -> list[np.ndarray]:
        """Results of case ``index`` with other ``arguments`` of its op; scalars are those it was compiled with."""
        given = [rt.asdevicearray(self.device, to_numpy(a)) for a in arguments if isinstance(a, torch.Tensor)]
        results = self._module[f"case_{index}"](*given)
        results = results if isinstance(results, tuple) else (results,)
        return [np.array(result.to_host()) for result in results]  # copies: the buffers are the device's


def run_cases(op: Op, cases: Sequence[Case], vmfb: bytes, device: rt.HalDevice) -> Iterator[tuple[Case, str | None]]:
    """Each case with None, or the first mismatch of its results against the op's reference."""
    loaded = LoadedCases(vmfb, device)
    for i, case in enumerate(cases):
        yield case, first_mismatch(op, case, loaded.run(i, case.arguments))


def first_mismatch(op: Op, case: Case, results: Sequence[np.ndarray]) -> str | None:
    """How ``results`` of ``case`` miss what the op's reference gives, if they do."""
    expected = op.reference(*case.arguments)
    expected = expected if isinstance(expected, tuple) else (expected,)
    given = [as_tensor(array, wanted) for array, wanted in zip(results, expected, strict=True)]
    faults = enumerate(mismatches(given, expected, case))
    return next((f"result {i}: {fault}" for i, fault in faults if fault), None)


def as_tensor(array: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """The bytes of ``array`` as a tensor of ``like``'s shape and dtype."""
    return torch.from_numpy(array.view(np.uint8).reshape(-1)).view(like.dtype).reshape(like.shape)
