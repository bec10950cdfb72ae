"""One export: from a model's name to an artifact on disk."""

import importlib.metadata
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from predecode.custom_kernels.layouts import PAGE_TOKENS
from predecode.custom_kernels.occupancy import occupancy
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.toolchain import Toolchain
from predecode.export.audit import audit_entry_points
from predecode.export.audit_exemptions import exemptions_of
from predecode.export.bandwidth_probe import write_probe
from predecode.export.compile import CompiledModule, compile_module
from predecode.export.golden import make_golden, tolerances
from predecode.export.inject import InjectedKernel, Injection, inject
from predecode.export.model.segments import Segment, build_segments
from predecode.export.model.tensor_spec import Geometry, TensorSpec
from predecode.export.models import ModelSource, find_model
from predecode.export.options import ExportOptions
from predecode.export.schedule import Fusion
from predecode.export.shard import Shard
from predecode.export.trace import PARAMETER_SCOPE, Program, trace
from predecode.export.transients import Transients
from predecode.export.weights import load_into, parameter_spans, write_parameters
from predecode.export.weights.spans import Span
from predecode.pipelines import manifest as records
from predecode.pipelines.artifact import Artifact, ArtifactWriter
from predecode.pipelines.golden import write_golden

MODULE_FILE = "module.vmfb"
PARAMETER_FILE = "parameters.irpa"
GOLDEN_FILE = "golden.safetensors"
MOST_GOLDEN_PARAMETER_BYTES = 256 * 2**20
_TOOLS = ("iree-base-compiler", "iree-turbine", "torch", "ziglang")

Progress = Callable[[str, int, int], None]
"""Called with (what is done, how much of it, of how much)."""


def export_artifact(options: ExportOptions, output: Path, progress: Progress) -> Artifact:
    """Export, compile and audit a model; the artifact appears at ``output`` only when all of it is done."""
    model = find_model(options.model, options.seed)
    shard = Shard(options.tensor_parallel, options.rank)
    geometry = Geometry(options.context_of(model.config.max_position_embeddings), options.pages)
    target = options.chip
    segments = build_segments(model.config, options.layers, shard, options.reduction, target.element_format, geometry)
    toolchain = Toolchain((str(options.clang),)) if options.clang else Toolchain()
    with ArtifactWriter(output) as writer:
        injection, compiled = _compile(segments, options, _spans(model, shard, geometry, options), toolchain, progress)
        entry_points = _entry_points(segments, options.rows, injection, compiled, target)
        (writer.folder / MODULE_FILE).write_bytes(compiled.vmfb)
        probe = write_probe(writer.folder, target, toolchain)
        golden = _golden(segments, model, shard, geometry, options, writer.folder, progress)
        write_parameters(
            writer.folder / PARAMETER_FILE,
            model.weights,
            model.config,
            options.layers,
            shard,
            target.element_format,
            geometry.max_context,
            lambda name, done, total: progress("writing parameters", done, total),
        )
        writer.finish(_manifest(options, model, geometry, toolchain, injection.kernels, entry_points, golden, probe))
    return Artifact.open(output, hashes=False)


def entry_point_name(segment: Segment, rows: int) -> str:
    """Name of the function that runs ``segment`` on ``rows`` rows."""
    return f"{segment.name}_rows_{rows}"


def _spans(model: ModelSource, shard: Shard, geometry: Geometry, options: ExportOptions) -> dict[str, Span]:
    element_format = options.chip.element_format
    return parameter_spans(model.weights, model.config, options.layers, shard, element_format, geometry.max_context)


def _compile(
    segments: Sequence[Segment],
    options: ExportOptions,
    spans: Mapping[str, Span],
    toolchain: Toolchain,
    progress: Progress,
) -> tuple[Injection, CompiledModule]:
    target = options.chip
    programs = [
        Program(entry_point_name(segment, count), segment.to_empty(device="cpu"), example_arguments(segment, count))
        for count in options.rows
        for segment in segments
    ]
    done = iter(range(len(programs)))
    traced = trace(programs, target, lambda name: progress("tracing", next(done), len(programs)))
    progress("building kernels", 0, 1)
    injection = inject(traced, target, toolchain, options.dispatch_schedule, Fusion(options.fuse), spans)
    progress("compiling", 0, 1)
    return injection, compile_module(traced, injection.kernels, target, toolchain, Transients.PASSED)


def example_arguments(segment: Segment, rows: int) -> tuple[torch.Tensor, ...]:
    """Tensors to trace ``segment`` with. Nobody writes or reads them, so that caches of any size take no memory."""
    return tuple(torch.empty(spec.shape, dtype=spec.dtype) for spec in segment.arguments(rows))


def _entry_points(
    segments: Sequence[Segment],
    rows: Sequence[int],
    injection: Injection,
    compiled: CompiledModule,
    target: Target,
) -> tuple[records.EntryPoint, ...]:
    names = {
        entry_point_name(segment, count): [spec.name for spec in segment.arguments(count)]
        for count in rows
        for segment in segments
    }
    audits = audit_entry_points(
        compiled.stream_ir, compiled.hal_ir, names, exemptions_of(target), injection.touched, injection.kernels
    )
    return tuple(
        records.EntryPoint(
            name=entry_point_name(segment, count),
            segment=segment.name,
            rows=count,
            arguments=tuple(_record(spec) for spec in segment.arguments(count)),
            results=tuple(_record(spec) for spec in segment.results(count)),
            audit=audits[entry_point_name(segment, count)],
        )
        for count in rows
        for segment in segments
    )


def _golden(
    segments: Sequence[Segment],
    model: ModelSource,
    shard: Shard,
    geometry: Geometry,
    options: ExportOptions,
    folder: Path,
    progress: Progress,
) -> records.Golden:
    """Write the golden file of a model small enough to run eagerly, no file for a larger one."""
    states = [segment.state_dict() for segment in segments]
    if sum(tensor.nbytes for state in states for tensor in state.values()) > MOST_GOLDEN_PARAMETER_BYTES:
        return records.Golden(None, tolerances(segments), 0)
    for state in states:
        load_into(state, model.weights, model.config, shard, options.chip.element_format)
    initial, steps = make_golden(
        segments,
        options.rows,
        geometry,
        options.seed,
        lambda step, of: progress("making golden steps", step, of),
    )
    write_golden(folder / GOLDEN_FILE, initial, steps)
    return records.Golden(GOLDEN_FILE, tolerances(segments), len(steps))


def _record(spec: TensorSpec) -> records.TensorSpec:
    dtype = str(spec.dtype).removeprefix("torch.")
    return records.TensorSpec(spec.name, spec.role, spec.shape, dtype, spec.layout, spec.in_place)


def _manifest(
    options: ExportOptions,
    model: ModelSource,
    geometry: Geometry,
    toolchain: Toolchain,
    kernels: Sequence[InjectedKernel],
    entry_points: tuple[records.EntryPoint, ...],
    golden: records.Golden,
    probe: records.BandwidthProbe,
) -> records.Manifest:
    target = options.chip
    return records.Manifest(
        model=records.Model(
            name=model.name,
            config=model.config.to_json(),
            layers=options.layers,
            tensor_parallel=options.tensor_parallel,
            rank=options.rank,
            reduce=options.reduction,
            schedule=options.dispatch_schedule.value,
            fuse=options.fuse,
            seed=model.seed,
        ),
        target=records.TargetRecord(
            name=target.name,
            device=target.device,
            arch=target.arch,
            element_format=target.element_format.name,
            memory_bandwidth=target.memory_bandwidth,
            compute_units=target.compute_units,
        ),
        geometry=records.Geometry(
            page_tokens=PAGE_TOKENS,
            pages=options.pages,
            max_context=geometry.max_context,
            block_table_width=geometry.block_table_width,
        ),
        tools={name: importlib.metadata.version(name) for name in _TOOLS} | toolchain.versions(target),
        module=MODULE_FILE,
        parameters=records.Parameters(PARAMETER_FILE, PARAMETER_SCOPE),
        kernels=tuple(_kernel_record(kernel, target) for kernel in kernels),
        entry_points=entry_points,
        golden=golden,
        bandwidth_probe=probe,
    )


def _kernel_record(injected: InjectedKernel, target: Target) -> records.KernelRecord:
    composition, kernel = injected.composition, injected.kernel
    record = records.KernelRecord(composition.symbol, composition.source, injected.code.sha256)
    if kernel is None:
        return record
    waves = -(-math.prod(composition.workgroup_size) // target.wave_size)
    return replace(
        record,
        resources=kernel.resources,
        waves_per_workgroup=waves,
        occupancy=occupancy(kernel, waves, target),
        instructions=kernel.instructions,
    )
