"""The small module beside the model's that streams a buffer, so that its speed is measured where the model runs."""

from pathlib import Path

import torch

from predecode.custom_kernels.stream_read import PIECE_WORDS, stream_read
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.toolchain import Toolchain
from predecode.export.audit import audit_entry_points
from predecode.export.compile import compile_module
from predecode.export.inject import inject
from predecode.export.trace import Program, trace
from predecode.pipelines import manifest as records

PROBE_FILE = "bandwidth.vmfb"
_FUNCTION = "stream_read"
# Far above any cache, and long enough a dispatch that its launch does not count.
_GPU_BYTES = 2**30
_CPU_BYTES = 2**28


class _StreamRead(torch.nn.Module):
    def forward(self, data: torch.Tensor) -> torch.Tensor:
        return stream_read(data)


def write_probe(folder: Path, target: Target, toolchain: Toolchain) -> records.BandwidthProbe:
    """Compile the probe for ``target`` into ``folder``; returns the manifest's record of it."""
    words = (_GPU_BYTES if target.has_hip_kernels else _CPU_BYTES) // 4
    data = torch.empty(words, dtype=torch.int32)  # only its shape is read
    module = trace([Program(_FUNCTION, _StreamRead(), (data,))], target, lambda name: None)
    injection = inject(module, target, toolchain)
    compiled = compile_module(module, injection.kernels, target, toolchain)
    (folder / PROBE_FILE).write_bytes(compiled.vmfb)
    audits = audit_entry_points(compiled.stream_ir, compiled.hal_ir, {_FUNCTION: ["data"]}, (), injection.touched)
    return records.BandwidthProbe(
        module=PROBE_FILE,
        entry_point=records.EntryPoint(
            name=_FUNCTION,
            segment=_FUNCTION,
            rows=1,
            arguments=(records.TensorSpec("data", "input", (words,), "int32", "row-major"),),
            results=(records.TensorSpec("result", "output", (words // PIECE_WORDS,), "int32", "row-major"),),
            audit=audits[_FUNCTION],
        ),
    )
