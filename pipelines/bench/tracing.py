"""The way to time single dispatches on the device at hand."""

from predecode.pipelines.bench import cupti, host_trace
from predecode.pipelines.bench.dispatch_times import DispatchTimes, DispatchTimesUnavailable, match
from predecode.pipelines.bench.stepping import Stepper

_STEPS = 20
_WARM_UP_STEPS = 3


def time_dispatches(stepper: Stepper) -> DispatchTimes:
    """Trace some steps more; raises `DispatchTimesUnavailable` with the reason where this device cannot."""
    driver = stepper.session.uri.split("://")[0]
    if driver.startswith("local"):
        return host_trace.trace_on_host(stepper)
    if driver == "cuda":
        return _trace_on_cuda(stepper)
    raise DispatchTimesUnavailable(f"the runtime's {driver} driver has no profiler, and no tracer of its own is known")


def _trace_on_cuda(stepper: Stepper) -> DispatchTimes:
    trace = cupti.KernelTrace()
    stepper.run(_WARM_UP_STEPS)
    with trace.recording():
        stepper.run(_STEPS)
    return match(trace.take_events(), stepper.segments, cupti.METHOD)
