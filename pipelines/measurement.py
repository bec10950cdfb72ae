"""`predecode inspect --device emulated`: what each dispatch does, counted while its machine code runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from predecode.pipelines.device import EMULATED
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.made_up_steps import MadeUpSteps
from predecode.pipelines.manifest import Manifest
from predecode.pipelines.running import keep_partial
from predecode.pipelines.session import DecodeSession


@dataclass(frozen=True, slots=True)
class Counters:
    """One dispatch: wave instructions by class, and memory traffic as the active lanes asked for it.

    ``cache_lines`` counts different 128-byte lines; it and ``lds_bank_conflicts`` are None on a device that
    is not strict.
    """

    wave_instructions: dict[str, int]
    matrix_operations: int
    bytes_loaded: int
    bytes_stored: int
    cache_lines: int | None
    lds_bank_conflicts: int | None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One entry point's dispatches in order, for rows that each see ``context`` tokens."""

    context: int
    dispatches: tuple[Counters, ...]


def measure(
    folder: Path | str, device: str, rows: Sequence[int] | None = None, *, strict: bool = False
) -> dict[str, Measurement]:
    """Step each of ``rows`` of the artifact in ``folder`` (default: all) once on the emulated device; by entry point
    name."""
    if device != EMULATED:
        raise PredecodeError(f"dispatches are counted on the device {EMULATED!r} only, not on {device!r}")
    from predecode.pipelines import emulation

    session = DecodeSession.open(folder, device, strict=strict)
    return measure_session(session, emulation.dispatch_counters, rows)


def measure_session(
    session: DecodeSession, take_counters: Callable[[], Sequence], rows: Sequence[int] | None = None
) -> dict[str, Measurement]:
    """As `measure`; ``take_counters`` gives the records of all dispatches since it was last called."""
    session.stand_alone()
    measured: dict[str, Measurement] = {}
    for count in session.manifest.chosen_rows(rows):
        context = longest_context(session.manifest, count)
        made_up = MadeUpSteps(session.manifest, count, context - 1)
        arguments = made_up.next_arguments()
        take_counters()
        session.step(reduce=keep_partial, **arguments)
        measured |= _by_entry_point(session.manifest, count, context, take_counters())
    return measured


def longest_context(manifest: Manifest, rows: int) -> int:
    """Tokens that each of ``rows`` sequences of one length can have, at least 1."""
    geometry = manifest.geometry
    return max(1, min(geometry.max_context, geometry.pages // rows * geometry.page_tokens))


def _by_entry_point(manifest: Manifest, rows: int, context: int, records: Sequence) -> Mapping[str, Measurement]:
    segments = manifest.segments(rows)
    listed = sum(len(segment.audit.dispatches) for segment in segments)
    if listed != len(records):
        raise PredecodeError(
            f"a step of {rows} rows ran {len(records)} dispatches, the manifest lists {listed}; export again"
        )
    remaining, result = iter(records), {}
    for segment in segments:
        counters = tuple(_counters(next(remaining)) for _ in segment.audit.dispatches)
        result[segment.name] = Measurement(context, counters)
    return result


def _counters(record) -> Counters:
    return Counters(
        wave_instructions=record.wave_instructions,
        matrix_operations=record.matrix_operations,
        bytes_loaded=record.bytes_loaded,
        bytes_stored=record.bytes_stored,
        cache_lines=record.cache_lines,
        lds_bank_conflicts=record.lds_bank_conflicts,
    )
