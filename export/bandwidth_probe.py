"""The small module beside the model's that reads memory: how fast it can be read where the model runs, and how long a
launch takes that does nothing else."""

from collections.abc import Sequence
from pathlib import Path

import torch

from predecode.custom_kernels.stream_read import PIECE_BYTES, stream_read
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.toolchain import Toolchain
from predecode.export.audit import audit_entry_points
from predecode.export.compile import compile_module
from predecode.export.inject import inject
from predecode.export.trace import Program, trace
from predecode.export.transients import Transients
from predecode.pipelines import manifest as records

PROBE_FILE = "bandwidth.vmfb"
_BANDWIDTH, _LAUNCHES = "bandwidth", "launches"
# Bytes of the readings of one invocation. Far above any cache; on a GPU so many that what an invocation itself takes
# does not count.
_GPU_READINGS = (2**32,) * 2
_CPU_READINGS = (2**28,) * 4
# Bytes of launches, one behind the other: those of a model's dispatches, of which longer ones take what bandwidth says.
_LAUNCH_BYTES = tuple(2**n for n in (27, 26, 25, 24, 23, 22, 21, 20, 18, 16))


class _BufferByBuffer(torch.nn.Module):
    """Reads each buffer in one launch, one buffer after the other."""

    def forward(self, before: torch.Tensor, *buffers: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = []
        for data in buffers:
            before = stream_read(data, before, 0, data.nbytes // PIECE_BYTES)
            results.append(before)
        return tuple(results)


class _LaunchByLaunch(torch.nn.Module):
    """Reads parts of one buffer that follow each other, each in a launch that starts when the one before has ended."""

    def forward(self, before: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
        first = 0
        for size in _LAUNCH_BYTES:
            before = stream_read(data, before, first, size // PIECE_BYTES)
            first += size // PIECE_BYTES
        return before


def write_probe(folder: Path, target: Target, toolchain: Toolchain) -> records.BandwidthProbe:
    """Compile the probe for ``target`` into ``folder``; returns the manifest's record of it.

    Launches are for GPUs: what a processor's cores read of few bytes, its caches hold.
    """
    on_gpu = target.has_hip_kernels
    programs = [_program(_BANDWIDTH, _BufferByBuffer(), _GPU_READINGS if on_gpu else _CPU_READINGS)]
    if on_gpu:
        programs.append(_program(_LAUNCHES, _LaunchByLaunch(), (-(-sum(_LAUNCH_BYTES) // 2**20) * 2**20,)))
    module = trace(programs, target, lambda name: None)
    injection = inject(module, target, toolchain)
    compiled = compile_module(module, injection.kernels, target, toolchain, Transients.PASSED)
    (folder / PROBE_FILE).write_bytes(compiled.vmfb)
    names = {program.name: _argument_names(program) for program in programs}
    audits = audit_entry_points(compiled.stream_ir, compiled.hal_ir, names, (), injection.touched)
    entries = {program.name: _entry_point(program, audits[program.name]) for program in programs}
    return records.BandwidthProbe(PROBE_FILE, entries[_BANDWIDTH], entries.get(_LAUNCHES))


def _program(name: str, module: torch.nn.Module, sizes: Sequence[int]) -> Program:
    buffers = (torch.empty(size // 4, dtype=torch.int32, device="meta") for size in sizes)
    return Program(name, module, (torch.empty(1, dtype=torch.int32, device="meta"), *buffers))


def _argument_names(program: Program) -> list[str]:
    return ["before", *(f"data_{i}" for i in range(len(program.arguments) - 1))]


def _entry_point(program: Program, audit: records.Audit) -> records.EntryPoint:
    with torch.device("meta"):
        results = program.module(*program.arguments)
    results = results if isinstance(results, tuple) else (results,)
    return records.EntryPoint(
        name=program.name,
        segment=program.name,
        rows=1,
        arguments=tuple(
            _record(name, "input", tensor)
            for name, tensor in zip(_argument_names(program), program.arguments, strict=True)
        ),
        results=tuple(_record(f"result_{i}", "output", tensor) for i, tensor in enumerate(results)),
        audit=audit,
    )


def _record(name: str, role: str, tensor: torch.Tensor) -> records.TensorSpec:
    return records.TensorSpec(name, role, tuple(tensor.shape), "int32", "row-major")
