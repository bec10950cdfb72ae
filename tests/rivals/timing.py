"""How long calls take: replayed from a CUDA graph, or one after the other from the host."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

REPLAYS = 15
_WARM_UP = 3
_POISON = -77
Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds per call, one value per repeat."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


class Graph:
    """``calls`` captured one behind the other; ``results`` are what they returned, filled by every replay.

    The calls are kept, as what they read must not go to others while the graph may be replayed.
    """

    def __init__(self, calls: Sequence[Call]):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        # Libraries choose kernels and take memory in their first calls, which a capture would refuse.
        with torch.cuda.stream(side):
            for call in calls:
                call()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        self._calls = tuple(calls)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads of the process may use the GPU meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self.results = [call() for call in calls]

    def replay_into_poison(self) -> None:
        """Run all calls once and wait for them; `results` hold nothing that an earlier run left there."""
        for tensor in _tensors(self.results):
            tensor.fill_(float("nan") if tensor.is_floating_point() else _POISON)
        self._graph.replay()
        torch.cuda.synchronize()

    def time(self, replays: int = REPLAYS) -> Timing:
        """Seconds per call: of each replay between two events, divided by the number of calls."""
        for _ in range(_WARM_UP):
            self._graph.replay()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        seconds = []
        for _ in range(replays):
            begin.record()
            self._graph.replay()
            end.record()
            end.synchronize()
            seconds.append(begin.elapsed_time(end) * 1e-3 / len(self._calls))
        return Timing(tuple(seconds))


def _tensors(results: Any) -> Iterator[torch.Tensor]:
    if isinstance(results, torch.Tensor):
        yield results
    elif isinstance(results, list | tuple):
        for result in results:
            yield from _tensors(result)


def time_from_host(calls: Sequence[Call], device: torch.device, repeats: int = REPLAYS) -> Timing:
    """Seconds per call, launched from the host: from the first call to the end of the last one."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    seconds = []
    for repeat in range(1 + repeats):
        wait()
        start = time.perf_counter()
        for call in calls:
            call()
        wait()
        if repeat:
            seconds.append((time.perf_counter() - start) / len(calls))
    return Timing(tuple(seconds))
