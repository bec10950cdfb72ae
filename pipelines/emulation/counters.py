"""What each dispatch on the emulated device did, counted on the machine code that ran."""

import ctypes
from dataclasses import dataclass

WAVE_INSTRUCTION_CLASSES = ("salu", "smem", "valu", "mfma", "lds", "vmem", "branch", "other")


@dataclass(frozen=True, slots=True)
class DispatchCounters:
    """One dispatch: its launch and sums over all its waves.

    ``grid`` is in workgroups, ``block`` in work-items of one workgroup. ``wave_instructions`` has one entry
    per class of instruction, each counted once per wave. ``bytes_loaded`` and ``bytes_stored`` are global
    memory as the active lanes asked for it; ``cache_lines`` is the number of different 128-byte lines among
    them. Cache lines and LDS bank conflicts are counted by strict devices only and None elsewhere.
    ``seconds`` is the emulation's time.
    """

    kernel: str
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    waves: int
    lds_bytes: int
    wave_instructions: dict[str, int]
    matrix_operations: int
    bytes_loaded: int
    bytes_stored: int
    cache_lines: int | None
    lds_bank_conflicts: int | None
    seconds: float


class _WaveCounters(ctypes.Structure):
    """``struct WaveCounters`` (isa/wave.h)."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in WAVE_INSTRUCTION_CLASSES),
        ("matrix_operations", ctypes.c_uint64),
        ("bytes_loaded", ctypes.c_uint64),
        ("bytes_stored", ctypes.c_uint64),
        ("lds_bank_conflicts", ctypes.c_uint64),
    )


class _DispatchRecord(ctypes.Structure):
    """``struct DispatchRecord`` (launch.h)."""

    _fields_ = (
        ("kernel", ctypes.c_char * 128),
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("strict", ctypes.c_uint32),
        ("lds_bytes", ctypes.c_uint32),
        ("waves", ctypes.c_uint64),
        ("cache_lines", ctypes.c_uint64),
        ("seconds", ctypes.c_double),
        ("counters", _WaveCounters),
    )


def take_dispatch_counters(library: ctypes.CDLL) -> list[DispatchCounters]:
    """The dispatches since the last call, in the order in which they ran."""
    taken: list[DispatchCounters] = []
    buffer = (_DispatchRecord * 256)()
    while count := library.emulator_take_records(buffer, len(buffer)):
        taken.extend(_from_record(buffer[i]) for i in range(count))
    return taken


def _from_record(record: _DispatchRecord) -> DispatchCounters:
    counters = record.counters
    return DispatchCounters(
        kernel=record.kernel.decode(),
        grid=tuple(record.grid),
        block=tuple(record.block),
        waves=record.waves,
        lds_bytes=record.lds_bytes,
        wave_instructions={name: getattr(counters, name) for name in WAVE_INSTRUCTION_CLASSES},
        matrix_operations=counters.matrix_operations,
        bytes_loaded=counters.bytes_loaded,
        bytes_stored=counters.bytes_stored,
        cache_lines=record.cache_lines if record.strict else None,
        lds_bank_conflicts=counters.lds_bank_conflicts if record.strict else None,
        seconds=record.seconds,
    )
