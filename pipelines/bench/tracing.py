"""The way to time single dispatches on the device at hand."""

from collections.abc import Callable, Sequence

from predecode.pipelines.bench import cupti, host_trace
from predecode.pipelines.bench.dispatch_times import DispatchTimes, DispatchTimesUnavailable, match
from predecode.pipelines.bench.stepping import Stepper
from predecode.pipelines.manifest import EntryPoint

_STEPS = 20
_WARM_UP_STEPS = 3


def time_dispatches(stepper: Stepper) -> DispatchTimes:
    """Trace some steps more; raises `DispatchTimesUnavailable` with the reason where this device cannot."""
    if stepper.session.uri.startswith("local"):
        return host_trace.trace_on_host(stepper)
    return trace_kernels(stepper.session.uri, stepper.run, stepper.segments)


def trace_kernels(uri: str, run: Callable[[int], object], segments: Sequence[EntryPoint]) -> DispatchTimes:
    """Trace what ``run``, given a number, executes as often on the GPU ``uri``, and waits for: ``segments`` in order.

    Raises `DispatchTimesUnavailable` where this device cannot be traced.
    """
    driver = uri.split("://")[0]
    if driver != "cuda":
        reason = f"the runtime's {driver} driver has no profiler, and no tracer of its own is known"
        raise DispatchTimesUnavailable(reason)
    trace = cupti.KernelTrace()
    run(_WARM_UP_STEPS)
    with trace.recording():
        run(_STEPS)
    return match(trace.take_events(), segments, cupti.METHOD)
