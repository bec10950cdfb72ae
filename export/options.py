"""What an export is asked for."""

from dataclasses import dataclass
from pathlib import Path

from predecode.custom_kernels.layouts import PAGE_TOKENS
from predecode.custom_kernels.targets import TARGETS, Target
from predecode.export.schedule import Fusion, Schedule
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.manifest import REDUCTIONS

DEFAULT_CONTEXT = 8192
SCHEDULE_CHOICES = tuple(schedule.value for schedule in Schedule)
FUSION_CHOICES = tuple(fusion.value for fusion in Fusion)


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """One export.

    ``model`` is a checkpoint folder or a preset's name. ``layers`` None exports the whole decode step.
    ``rows`` are the row counts to compile entry points for. ``max_context`` None means `DEFAULT_CONTEXT` tokens, or
    all the positions of a model that has fewer. ``reduce`` None means "external" when there are
    several ranks. ``schedule`` and ``fuse`` are how op calls share dispatches (see `Schedule` and `Fusion`);
    ``schedule`` None means "overlap" where calls are fused, as those of a level then always run side by side, else
    "serial".
    ``clang`` is another compiler for the kernels (ROCm's, say) than the bundled one.
    """

    model: str
    target: str
    layers: tuple[int, ...] | None = None
    rows: tuple[int, ...] = (1, 4, 16, 64)
    max_context: int | None = None
    pages: int = 256
    tensor_parallel: int = 1
    rank: int = 0
    reduce: str | None = None
    seed: int = 0
    schedule: str | None = None
    fuse: str = Fusion.NONE.value
    clang: Path | None = None

    def __post_init__(self):
        if self.target not in TARGETS:
            raise PredecodeError(f"target {self.target!r} is unknown; choose one of {', '.join(TARGETS)}")
        if not self.rows or min(self.rows) < 1 or len(set(self.rows)) != len(self.rows):
            raise PredecodeError(f"rows {self.rows}: expected distinct row counts of 1 or more")
        if self.max_context is not None and self.max_context < 1:
            raise PredecodeError(f"max context {self.max_context}: expected 1 token or more")
        if self.pages < 1:
            raise PredecodeError(f"pages {self.pages}: expected a pool of 1 page ({PAGE_TOKENS} tokens) or more")
        if self.reduce not in (None, *REDUCTIONS):
            raise PredecodeError(f"reduce {self.reduce!r}: expected one of {', '.join(REDUCTIONS)}")
        if self.reduce == "peers" and not self.chip.has_hip_kernels:
            raise PredecodeError(
                f"reduce 'peers': {self.target} has no kernel that adds up what ranks have; use external"
            )
        if self.reduce == "peers" and self.tensor_parallel < 2:
            raise PredecodeError("reduce 'peers': one rank has nothing to add up; give --tensor-parallel, or use none")
        if self.schedule not in (None, *SCHEDULE_CHOICES):
            raise PredecodeError(f"schedule {self.schedule!r}: expected one of {', '.join(SCHEDULE_CHOICES)}")
        if self.fuse not in FUSION_CHOICES:
            raise PredecodeError(f"fuse {self.fuse!r}: expected one of {', '.join(FUSION_CHOICES)}")
        if self._is_fused and self.schedule == Schedule.SERIAL.value:
            raise PredecodeError(
                f"schedule 'serial' with fuse {self.fuse!r}: fused calls of a level run side by side; do not give a "
                "schedule"
            )
        if self._is_fused and not self.chip.has_hip_kernels:
            raise PredecodeError(f"fuse {self.fuse!r}: {self.target} runs each op as a function of its own; use none")
        if self.layers is not None and (not self.layers or min(self.layers) < 0):
            raise PredecodeError(f"layers {self.layers}: expected layer indices from 0, such as 0,3")
        if self.clang is not None and not self.clang.is_file():
            raise PredecodeError(f"clang {self.clang} does not exist; give the path of a clang with AMDGPU support")

    @property
    def chip(self) -> Target:
        """The target's data."""
        return TARGETS[self.target]

    def context_of(self, positions: int) -> int:
        """Longest context in tokens, for a model with so many positions."""
        return self.max_context or min(DEFAULT_CONTEXT, positions)

    @property
    def dispatch_schedule(self) -> Schedule:
        """How calls share dispatches."""
        usual = Schedule.OVERLAP if self._is_fused else Schedule.SERIAL
        return Schedule(self.schedule) if self.schedule else usual

    @property
    def _is_fused(self) -> bool:
        return self.fuse != Fusion.NONE.value

    @property
    def reduction(self) -> str:
        """How partial sums are reduced: one of `REDUCTIONS`."""
        return self.reduce or ("external" if self.tensor_parallel > 1 else "none")
