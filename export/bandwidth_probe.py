"""The small module beside the model's that streams buffers, so that their speed is measured where the model runs."""

from pathlib import Path

import torch

from predecode.custom_kernels.stream_read import PIECE_WORDS, stream_read
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.toolchain import Toolchain
from predecode.export.audit import audit_entry_points
from predecode.export.compile import compile_module
from predecode.export.inject import inject
from predecode.export.trace import Program, trace
from predecode.export.transients import Transients
from predecode.pipelines import manifest as records

PROBE_FILE = "bandwidth.vmfb"
_FUNCTION = "stream_read"
# Bytes of the buffers that one invocation reads. Far above any cache; on a GPU so many that what an invocation itself
# takes does not count.
_GPU_BUFFERS = (2**32,) * 2
_CPU_BUFFERS = (2**28,) * 4


class _StreamRead(torch.nn.Module):
    def forward(self, *buffers: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(stream_read(data) for data in buffers)


def write_probe(folder: Path, target: Target, toolchain: Toolchain) -> records.BandwidthProbe:
    """Compile the probe for ``target`` into ``folder``; returns the manifest's record of it."""
    words = [size // 4 for size in (_GPU_BUFFERS if target.has_hip_kernels else _CPU_BUFFERS)]
    names = [f"data_{i}" for i in range(len(words))]
    buffers = tuple(torch.empty(count, dtype=torch.int32) for count in words)  # only their shapes are read
    module = trace([Program(_FUNCTION, _StreamRead(), buffers)], target, lambda name: None)
    injection = inject(module, target, toolchain)
    compiled = compile_module(module, injection.kernels, target, toolchain, Transients.PASSED)
    (folder / PROBE_FILE).write_bytes(compiled.vmfb)
    audits = audit_entry_points(compiled.stream_ir, compiled.hal_ir, {_FUNCTION: names}, (), injection.touched)
    return records.BandwidthProbe(
        module=PROBE_FILE,
        entry_point=records.EntryPoint(
            name=_FUNCTION,
            segment=_FUNCTION,
            rows=1,
            arguments=tuple(_record(name, "input", count) for name, count in zip(names, words, strict=True)),
            results=tuple(_record(f"result_{i}", "output", n // PIECE_WORDS) for i, n in enumerate(words)),
            audit=audits[_FUNCTION],
        ),
    )


def _record(name: str, role: str, words: int) -> records.TensorSpec:
    return records.TensorSpec(name, role, (words,), "int32", "row-major")
