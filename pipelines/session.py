"""Stepping an artifact: the module and its parameters on a device, the caches kept there between steps."""

from collections.abc import Callable, Mapping
from pathlib import Path

import iree.runtime as rt
import ml_dtypes  # noqa: F401  registers the dtype names of bfloat16 and FP8
import numpy as np

from predecode.pipelines import device as devices
from predecode.pipelines.artifact import Artifact, Progress
from predecode.pipelines.device import DeviceError
from predecode.pipelines.device_tensor import DeviceTensor
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.mailboxes import AllGather, Mailboxes
from predecode.pipelines.manifest import RESIDENT_ROLES, EntryPoint, Manifest, TensorSpec
from predecode.pipelines.staging import StagedInputs
from predecode.pipelines.step_inputs import (
    PARTIAL_SUFFIX,
    StepInputError,
    caller_arguments,
    prepare,
    result_name,
)
from predecode.pipelines.step_results import StepResults, to_host
from predecode.pipelines.submission import EntryFunction, Timeline, transient_memory

Reduce = Callable[[rt.DeviceArray], "rt.DeviceArray | np.ndarray"]
"""Sums a partial result [rows, hidden] over the tensor-parallel ranks, as the caller's collective does it."""


class DecodeSession:
    """An opened artifact that can be stepped.

    ``caches`` maps cache names to the device arrays that every step reads and writes in place; they start as
    zeros. Do not keep a cache's array over a step: read it with `read_cache`.
    """

    def __init__(self, artifact: Artifact, uri: str, device: rt.HalDevice):
        self.artifact = artifact
        self.uri = uri
        self._timeline = Timeline(device)
        self._staged: dict[int, StagedInputs] = {}
        self._mailboxes = Mailboxes(self.manifest, device, uri) if self.manifest.model.reduce == "peers" else None
        try:
            self._functions = self._load(device)
            specs = self._cache_specs().items()
            self.caches = {name: rt.asdevicearray(device, _zeros(spec)) for name, spec in specs}
        except (RuntimeError, ValueError, MemoryError) as error:
            raise self._failure(f"{artifact.folder} cannot be loaded on {uri}", error) from None
        # Attributes are freed in the order they were set, and a device must outlive what is on it.
        self.device = device

    @classmethod
    def open(
        cls,
        folder: Path | str,
        device: str | None = None,
        *,
        strict: bool = False,
        hashes: bool = True,
        progress: Progress | None = None,
    ) -> "DecodeSession":
        """Open the artifact in ``folder`` on ``device``: an IREE URI, "emulated", or None (the target's).

        ``strict`` switches an emulated device's memory checks on; ``hashes=False`` skips hashing the files.
        Raises a `PredecodeError` that names both sides of what does not fit.
        """
        artifact = Artifact.open(folder, hashes=hashes, progress=progress)
        target = artifact.manifest.target
        uri = devices.check_target(target, device)
        return cls(artifact, uri, devices.open_device(target, device, strict=strict))

    def connect(self, all_gather: AllGather) -> None:
        """Let the ranks of an artifact that was exported with ``--reduce peers`` add up partial sums on their devices.

        Needed once before the first step, and again after a step that failed, on all ranks together: each is a process
        of its own on one host. ``all_gather`` is the caller's: it hands a few bytes of each rank to all of them. From
        then on all ranks make the same steps, of as many rows.
        """
        if self._mailboxes is None:
            reduce = self.manifest.model.reduce
            raise PredecodeError(
                f"the artifact was exported with --reduce {reduce}, and connects to no ranks; export with peers"
            )
        self.wait()
        self._mailboxes.connect(all_gather)

    def stand_alone(self) -> None:
        """Where ranks add up partial sums on their devices: take this one's for the sums, to run it without others."""
        if self._mailboxes is not None:
            self._set_up_mailboxes(self._mailboxes.stand_alone)

    def loop_back(self) -> None:
        """As `stand_alone`, but let the rank send as much to itself as it would to others, to time it without them."""
        if self._mailboxes is not None:
            self._set_up_mailboxes(self._mailboxes.loop_back)

    @property
    def manifest(self) -> Manifest:
        """The artifact's manifest."""
        return self.artifact.manifest

    def step(self, *, reduce: Reduce | None = None, **arguments: np.ndarray) -> dict[str, np.ndarray]:
        """Run one step for T rows and return its results by name, as NumPy arrays of T rows.

        As `start_step`, and waits for the results.
        """
        return self.start_step(reduce=reduce, **arguments).to_host()

    def start_step(self, *, reduce: Reduce | None = None, **arguments: "np.ndarray | rt.DeviceArray") -> StepResults:
        """Submit one step for T rows; its results stay on the device, where `StepResults` gives them out.

        ``arguments`` are NumPy arrays by the names of the manifest's entry points (tokens, positions,
        lengths, slot_mapping, block_table; or hidden and residual instead of tokens for a part of the
        model). T may be any number up to the largest compiled row count: the step is padded to the next
        compiled one with rows of slot -1. Every value that addresses memory is checked first
        (`StepInputError`).

        ``reduce`` is needed by tensor-parallel artifacts whose entry points end at the all-reduces; it is
        given each partial sum when that is complete, and may change it in place (see `tensor`).
        """
        rows, compiled, values = prepare(self.manifest, arguments, self.wait)
        segments = self.manifest.segments(compiled)
        if reduce is None and any(spec.name.endswith(PARTIAL_SUFFIX) for s in segments for spec in s.results):
            model = self.manifest.model
            raise StepInputError(
                f"the artifact is rank {model.rank} of {model.tensor_parallel} and ends its entry points at "
                "the all-reduces; pass reduce=, or export with --reduce none to measure one rank"
            )
        values = self._stage(compiled, values)
        outputs: dict[str, rt.DeviceArray | np.ndarray] = {}
        for segment in segments:
            results = self.submit_segment(segment, values)
            for spec in segment.results:
                if spec.role == "cache":
                    continue
                value = results[spec.name]
                if spec.name.endswith(PARTIAL_SUFFIX):
                    self.wait()
                    value = reduce(value)
                values[result_name(spec.name)] = value
                if spec.role == "output" or segment is segments[-1]:
                    outputs[result_name(spec.name)] = value
        return StepResults(self, rows, outputs)

    def tensor(self, array: rt.DeviceArray) -> DeviceTensor:
        """What is in the device's memory, such as a partial sum, for another library: ``torch.from_dlpack(...)``.

        The memory is shared: what is written to it is what the session reads.
        """
        return DeviceTensor(array, self.device, self.uri)

    def run_segment(
        self, segment: EntryPoint, values: Mapping[str, "rt.DeviceArray | np.ndarray"]
    ) -> dict[str, rt.DeviceArray]:
        """As `submit_segment`, and waits for the results."""
        results = self.submit_segment(segment, values)
        self.wait()
        return results

    def submit_segment(
        self, segment: EntryPoint, values: Mapping[str, "rt.DeviceArray | np.ndarray"]
    ) -> dict[str, rt.DeviceArray]:
        """Submit one entry point with its arguments from ``values`` and the caches, unchecked; results by name.

        The caches are replaced by the results that stand for them.
        """
        arguments = [
            self._resident(spec) if spec.role in RESIDENT_ROLES else self._device_value(spec, values[spec.name])
            for spec in segment.arguments
        ]
        try:
            results = self._functions[segment.name].submit(self.device, self._timeline, arguments)
        except (RuntimeError, ValueError) as error:
            raise self._step_failure(f"{segment.name} failed on {self.uri}", error) from None
        by_name = {spec.name: value for spec, value in zip(segment.results, results, strict=True)}
        for spec in segment.results:
            if spec.role == "cache":
                self.caches[spec.in_place or spec.name] = by_name[spec.name]
        return by_name

    def wait(self) -> None:
        """Return when all submitted steps have ended; raises a `PredecodeError` when one of them failed."""
        try:
            self._timeline.wait()
        except RuntimeError as error:
            raise self._step_failure(f"a step failed on {self.uri}", error) from None
        fault = devices.pending_fault(self.uri)
        if fault:
            raise fault

    def read_cache(self, name: str) -> np.ndarray:
        """A copy of a cache: int8 [pages, page bytes]."""
        self.wait()
        return to_host(self._known_cache(name))

    def write_cache(self, name: str, data: np.ndarray) -> None:
        """Replace a cache by ``data`` of the same shape and dtype."""
        cache = self._known_cache(name)
        if tuple(data.shape) != tuple(cache.shape) or data.dtype != cache.dtype:
            raise StepInputError(
                f"cache {name} is {cache.dtype}{list(cache.shape)}, it was given {data.dtype}{list(data.shape)}"
            )
        self.caches[name] = self._upload(data)

    def reset(self) -> None:
        """Fill all caches with zeros."""
        for name, spec in self._cache_specs().items():
            self.caches[name] = self._upload(_zeros(spec))

    def _load(self, device: rt.HalDevice) -> dict[str, EntryFunction]:
        config = rt.Config(device=device)
        modules = []
        if self.manifest.parameters:
            index = rt.ParameterIndex()
            index.load(str(self.artifact.path(self.manifest.parameters.file)))
            provider = index.create_provider(scope=self.manifest.parameters.scope)
            modules.append(rt.create_io_parameters_module(config.vm_instance, provider))
        path = self.artifact.path(self.manifest.module)
        module = rt.VmModule.mmap(config.vm_instance, str(path))
        context = rt.SystemContext(vm_modules=[*modules, module], config=config).vm_context
        functions = {}
        transients = transient_memory(device, self.manifest.entry_points)
        for entry in self.manifest.entry_points:
            try:
                functions[entry.name] = EntryFunction(context, module, entry, transients)
            except KeyError:
                raise PredecodeError(
                    f"{path} has no function {entry.name!r}, the manifest lists it; export again"
                ) from None
        return functions

    def _cache_specs(self) -> dict[str, TensorSpec]:
        return {
            spec.name: spec for entry in self.manifest.entry_points for spec in entry.arguments if spec.role == "cache"
        }

    def _resident(self, spec: TensorSpec) -> rt.DeviceArray:
        if spec.role == "cache":
            return self.caches[spec.name]
        if self._mailboxes.table is None:
            model = self.manifest.model
            raise StepInputError(
                f"the artifact is rank {model.rank} of {model.tensor_parallel}, and adds up partial sums with the "
                "others; call connect() on every rank first, or stand_alone() to run one"
            )
        return self._mailboxes.table

    def _set_up_mailboxes(self, set_up: Callable[[], None]) -> None:
        self.wait()
        try:
            set_up()
        except (RuntimeError, ValueError, MemoryError) as error:
            raise self._failure(f"{self.uri} has no memory for what ranks send each other", error) from None

    def _known_cache(self, name: str) -> rt.DeviceArray:
        if name not in self.caches:
            raise StepInputError(f"there is no cache {name!r}; the artifact has {sorted(self.caches)}")
        return self.caches[name]

    def _stage(
        self, rows: int, values: Mapping[str, "np.ndarray | rt.DeviceArray"]
    ) -> "dict[str, np.ndarray | rt.DeviceArray]":
        """``values`` with those of the host replaced by device arrays, once for all segments of a step."""
        on_host = {name: value for name, value in values.items() if not isinstance(value, rt.DeviceArray)}
        try:
            if rows not in self._staged:
                self._staged[rows] = StagedInputs(self.device, caller_arguments(self.manifest.segments(rows)))
            return {**values, **self._staged[rows].write(self._timeline, on_host)}
        except (RuntimeError, MemoryError) as error:
            raise self._step_failure(f"a step's inputs cannot be handed to {self.uri}", error) from None

    def _device_value(self, spec: TensorSpec, value: "rt.DeviceArray | np.ndarray") -> rt.DeviceArray:
        if tuple(value.shape) != spec.shape or value.dtype != np.dtype(spec.dtype):
            raise StepInputError(
                f"{spec.name} is {value.dtype}{list(value.shape)}, the entry point takes {spec.dtype}{list(spec.shape)}"
            )
        return value if isinstance(value, rt.DeviceArray) else self._upload(value)

    def _upload(self, array: np.ndarray) -> rt.DeviceArray:
        return rt.asdevicearray(self.device, array)

    def _step_failure(self, what: str, error: BaseException) -> PredecodeError:
        # A semaphore that failed stays so; later steps get a new one, and buffers that nobody waits for.
        self._timeline = Timeline(self.device)
        self._staged.clear()
        if self._mailboxes is not None:
            self._mailboxes.disconnect()
        return self._failure(what, error)

    def _failure(self, what: str, error: BaseException) -> PredecodeError:
        """The emulated device's own account of a failure where it has one, else the runtime's first line."""
        return devices.pending_fault(self.uri) or DeviceError(f"{what}: {devices.first_line(error)}")


def _zeros(spec: TensorSpec) -> np.ndarray:
    return np.zeros(spec.shape, np.dtype(spec.dtype))
