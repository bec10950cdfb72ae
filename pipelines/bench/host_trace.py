"""Times of single dispatches on a CPU, by the runtime's own profiler.

Its Python bindings give no access to it, so its benchmark tool runs the same module on the same inputs, in a
process of its own.
"""

import json
import subprocess
import tempfile
from pathlib import Path

import iree.runtime as rt
import numpy as np

from predecode.pipelines.bench.dispatch_times import DispatchTimes, DispatchTimesUnavailable, Event, match
from predecode.pipelines.bench.stepping import Stepper
from predecode.pipelines.manifest import EntryPoint, TensorSpec
from predecode.pipelines.step_inputs import result_name
from predecode.pipelines.step_results import to_host

STEPS = 15
WARM_UP_STEPS = 5
METHOD = "the runtime's host-execution events, from the first workgroup's start to the last one's end"
_TIMEOUT_SECONDS = 600
_IREE_TYPES = {"int64": "i64", "int32": "i32", "int8": "i8", "bfloat16": "bf16", "float32": "f32"}


def trace_on_host(stepper: Stepper) -> DispatchTimes:
    """Run each entry point of the step `STEPS` times; raises `DispatchTimesUnavailable` where that fails."""
    seconds: list[tuple[float, ...]] = []
    values: dict[str, np.ndarray] = {name: to_host(array) for name, array in stepper.inputs.items()}
    with tempfile.TemporaryDirectory() as folder:
        for segment in stepper.segments:
            files = _Inputs(stepper, Path(folder)).write(segment, values)
            seconds += match(_run(stepper, segment, files, Path(folder)), [segment], METHOD).seconds
            results = stepper.session.run_segment(segment, values)
            values |= {
                result_name(spec.name): to_host(results[spec.name]) for spec in segment.results if spec.role != "cache"
            }
    return DispatchTimes(tuple(seconds), METHOD)


class _Inputs:
    """Files that hold the arguments of an entry point as bare bytes."""

    def __init__(self, stepper: Stepper, folder: Path):
        self._session = stepper.session
        self._folder = folder

    def write(self, segment: EntryPoint, values: dict[str, np.ndarray]) -> list[str]:
        """One ``--input=`` per argument, and one for the transient memory."""
        options = []
        for index, spec in enumerate(segment.arguments):
            array = self._session.read_cache(spec.name) if spec.role == "cache" else values[spec.name]
            path = self._folder / f"{segment.name}.{index}.bin"
            path.write_bytes(np.ascontiguousarray(array).tobytes())
            options.append(f"--input={_type_text(spec)}=@{path}")
        # "&" hands over the buffer itself.
        return [*options, f"--input=&{max(segment.audit.transient_bytes, 1)}xi8"]


def _type_text(spec: TensorSpec) -> str:
    return "x".join([*map(str, spec.shape), _IREE_TYPES[spec.dtype]])


def _run(stepper: Stepper, segment: EntryPoint, inputs: list[str], folder: Path) -> list[Event]:
    artifact, profile = stepper.session.artifact, folder / f"{segment.name}.ireeprof"
    command = [
        rt.benchmark_exe(),
        f"--module={artifact.path(artifact.manifest.module)}",
        f"--device={stepper.session.uri}",
        f"--function={segment.name}",
        *inputs,
        f"--benchmark_min_time={STEPS + WARM_UP_STEPS}x",
        "--device_profiling_mode=host-execution,queue-events",
        f"--device_profiling_output={profile}",
    ]
    parameters = artifact.manifest.parameters
    if parameters:
        command.append(f"--parameters={parameters.scope}={artifact.path(parameters.file)}")
    _call(command)
    tool = Path(rt.benchmark_exe()).parent / "iree-profile"
    return _read(_call([str(tool), "dispatch", "--dispatch_events", "--format=jsonl", str(profile)]))


def _call(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DispatchTimesUnavailable(f"{Path(command[0]).name} could not be run: {error}") from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise DispatchTimesUnavailable(f"{Path(command[0]).name} failed ({done.returncode}): {reason}")
    return done.stdout


def _read(text: str) -> list[Event]:
    """Events of the steps after warm-up, in the order in which each step's command buffer lists them."""
    records = [json.loads(line) for line in text.splitlines()]
    events = [r for r in records if r["type"] == "host_dispatch_event" and r["valid"]]
    submissions = sorted({r["submission_id"] for r in events})[WARM_UP_STEPS:]
    events = [r for r in events if r["submission_id"] in set(submissions)]
    events.sort(key=lambda r: (r["submission_id"], r["command_index"], r["event_id"]))
    return [
        Event(r["key"], tuple(r["workgroup_count"]), r["start_host_time_ns"], r["end_host_time_ns"]) for r in events
    ]
