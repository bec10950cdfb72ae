"""Steps of one batch, submitted one behind the other with everything resident on the device."""

import time
from dataclasses import dataclass

import iree.runtime as rt

from predecode.pipelines.artifact import Progress
from predecode.pipelines.bench.batch import Batch, step_arguments
from predecode.pipelines.running import keep_partial
from predecode.pipelines.session import DecodeSession, Reduce
from predecode.pipelines.step_inputs import PARTIAL_SUFFIX, result_name

REPEATS = 9
# More steps under way would only hold more memory: the host is far ahead of the device by then.
MOST_STEPS_UNDER_WAY = 256
_WARM_UP_SECONDS = 0.3
_FEWEST_WARM_UP_STEPS = 3


@dataclass(frozen=True, slots=True)
class Pace:
    """How long is measured: ``steps`` per repeat, or as many as take ``seconds`` over all repeats."""

    steps: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Seconds per step, one value per repeat: from the first submission to the end of the last step.

    ``submission`` are seconds that the host takes to submit one step to an idle device.
    """

    steps_per_repeat: int
    seconds: tuple[float, ...]
    submission: tuple[float, ...]


class Stepper:
    """The same step again and again: the caches are written at the same place each time.

    Without ``reduce``, a partial sum stands for the sum over ranks.
    """

    def __init__(self, session: DecodeSession, batch: Batch, reduce: Reduce = keep_partial):
        self.session = session
        self._reduce = reduce
        self.segments = session.manifest.segments(batch.rows)
        arguments = step_arguments(session.manifest, batch)
        self._values = {name: rt.asdevicearray(session.device, array) for name, array in arguments.items()}

    @property
    def inputs(self) -> dict[str, rt.DeviceArray]:
        """What is submitted, without the caches."""
        return dict(self._values)

    def submit(self) -> None:
        """Submit one step."""
        values = dict(self._values)
        for segment in self.segments:
            results = self.session.submit_segment(segment, values)
            for name, value in results.items():
                values[result_name(name)] = self._reduce(value) if name.endswith(PARTIAL_SUFFIX) else value

    def run(self, steps: int) -> tuple[float, float]:
        """Submit ``steps`` steps and wait for them: seconds for all, and seconds for submitting."""
        start = time.perf_counter()
        for _ in range(steps):
            self.submit()
        submitted = time.perf_counter()
        self.session.wait()
        return time.perf_counter() - start, submitted - start

    def time(self, pace: Pace, progress: Progress | None = None) -> StepTimes:
        """Warm up, then time `REPEATS` repeats."""
        steps = pace.steps or self._steps_in(pace.seconds / REPEATS)
        seconds, submission = [], []
        self.run(min(steps, MOST_STEPS_UNDER_WAY))
        for repeat in range(REPEATS):
            seconds.append(self._run_in_portions(steps) / steps)
            submission.append(self.run(1)[1])
            if progress:
                progress("timing steps", repeat + 1, REPEATS)
        return StepTimes(steps, tuple(seconds), tuple(submission))

    def _steps_in(self, seconds: float) -> int:
        done, spent = 0, 0.0
        while done < _FEWEST_WARM_UP_STEPS or spent < _WARM_UP_SECONDS:
            spent += self.run(1)[0]
            done += 1
        return max(1, round(seconds * done / spent))

    def _run_in_portions(self, steps: int) -> float:
        portions = [MOST_STEPS_UNDER_WAY] * (steps // MOST_STEPS_UNDER_WAY) + [steps % MOST_STEPS_UNDER_WAY]
        return sum(self.run(portion)[0] for portion in portions if portion)
