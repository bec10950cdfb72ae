"""Runs translated machine code from Python: one workgroup, its waves as ctypes structures laid out like
wave.h."""

import ctypes
import functools
import hashlib
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from predecode.pipelines.emulation import module_loader
from predecode.pipelines.emulation.host_compiler import build_shared_object, content_key
from predecode.pipelines.emulation.isa import translate

HEADERS = Path(translate.__file__).parent
ENDED, BARRIER, YIELDED, FAULTED = range(4)
CODE_ADDRESS = 0x10_0000_0000
S_ENDPGM = bytes.fromhex("000081bf")
VCC, EXEC = 106, 126


class Counters(ctypes.Structure):
    """`struct WaveCounters`."""

    names = (
        "salu",
        "smem",
        "valu",
        "mfma",
        "lds",
        "vmem",
        "branch",
        "other",
        "matrix_operations",
        "bytes_loaded",
        "bytes_stored",
        "lds_bank_conflicts",
    )
    _fields_ = [(name, ctypes.c_uint64) for name in names]


class LdsByte(ctypes.Structure):
    """`struct LdsByte`."""

    _fields_ = [("words", ctypes.c_uint32 * 3), ("bytes", ctypes.c_uint8 * 4)]


class Checks(ctypes.Structure):
    """`struct WaveChecks`."""

    _fields_ = [
        ("vgpr_defined", ctypes.c_uint64 * 512),
        ("sequences", ctypes.c_uint32 * 1024),
        ("sgpr_sequence", ctypes.c_uint32 * 128),
        ("sgpr_defined", ctypes.c_uint8 * 128),
        ("scc_defined", ctypes.c_uint8),
        ("counts", ctypes.c_uint32 * 15),
    ]


class Wave(ctypes.Structure):
    """`struct Wave`."""

    _fields_ = [
        ("vgpr", ctypes.c_uint32 * 64 * 512),
        ("lane_mask", ctypes.c_uint32 * 64),
        ("sgpr", ctypes.c_uint32 * 128),
        ("scc", ctypes.c_uint32),
        ("mode", ctypes.c_uint32),
        ("resume", ctypes.c_uint32),
        ("index", ctypes.c_uint32),
        ("initialized_sgprs", ctypes.c_uint32),
        ("initialized_vgprs", ctypes.c_uint32),
        ("faulted", ctypes.c_uint32),
        ("turns", ctypes.c_uint32),
        ("workgroup", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p),
        ("scratch_state", ctypes.c_void_p),
        ("scratch_bytes_per_lane", ctypes.c_uint64),
        ("code_address", ctypes.c_uint64),
        ("memory_changes", ctypes.c_uint64),
        ("counters", Counters),
        ("checks", Checks),
    ]


CHECK = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_uint64,
    ctypes.c_uint32,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_uint64,
)
REPORT = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint64)


class Workgroup(ctypes.Structure):
    """`struct Workgroup`."""

    _fields_ = [
        ("lds", ctypes.c_void_p),
        ("lds_size", ctypes.c_uint32),
        ("wave_count", ctypes.c_uint32),
        ("waves", ctypes.c_void_p * 16),
        ("lds_bytes", ctypes.c_void_p),
        ("id", ctypes.c_uint32 * 3),
        ("unused", ctypes.c_uint32),
        ("dispatch_pointer", ctypes.c_void_p),
        ("user", ctypes.c_void_p),
        ("check_global", CHECK),
        ("report", REPORT),
    ]


@dataclass
class Group:
    """One workgroup: set registers of `waves`, then `run`.  `faults` collects (message, lane, address)."""

    waves: list[Wave]
    group: Workgroup
    faults: list[tuple[str, int, int]] = field(default_factory=list)
    keep: list = field(default_factory=list)

    def vgpr(self, index: int, wave: int = 0) -> np.ndarray:
        """View [64] uint32 of a vector register (256.. are AGPRs)."""
        return np.ctypeslib.as_array(self.waves[wave].vgpr[index])

    def run(self, function) -> None:
        """Run all waves to their end, meeting at barriers; stops at the first fault."""
        live = list(self.waves)
        while live:
            waiting = []
            for wave in live:
                if function(ctypes.byref(wave)) in (BARRIER, YIELDED):
                    waiting.append(wave)
                if self.faults:
                    return
            live = waiting


def _aligned(kind):
    raw = ctypes.create_string_buffer(ctypes.sizeof(kind) + 64)
    start = (ctypes.addressof(raw) + 63) & ~63
    value = kind.from_address(start)
    value._raw = raw
    return value


def make_group(
    waves: int = 1,
    lds_size: int = 0,
    scratch: int = 0,
    strict: bool = False,
    sgprs: int = 106,
    vgprs: int = 256,
):
    """A workgroup with full EXEC; strict mode takes the first `sgprs` and `vgprs` registers as set."""
    group = _aligned(Workgroup)
    result = Group([_aligned(Wave) for _ in range(waves)], group)
    lds = np.zeros(lds_size + 16, np.uint8)
    group.lds, group.lds_size, group.wave_count = lds.ctypes.data, lds_size, waves
    if strict:
        shadow = np.zeros(lds_size * ctypes.sizeof(LdsByte) + 1, np.uint8)
        group.lds_bytes = shadow.ctypes.data
        result.keep.append(shadow)
    group.report = REPORT(lambda g, w, message, lane, at: result.faults.append((message.decode(), lane, at)))
    result.keep += [lds, group.report]
    result.lds = lds
    for i, wave in enumerate(result.waves):
        group.waves[i] = ctypes.addressof(wave)
        private, state = np.zeros((2, 64 * scratch + 16), np.uint8)
        result.keep += [private, state]
        wave.workgroup, wave.scratch, wave.scratch_bytes_per_lane = (
            ctypes.addressof(group),
            private.ctypes.data,
            scratch,
        )
        wave.scratch_state = state.ctypes.data if strict else None
        wave.mode, wave.index, wave.code_address = 0x2F0, i, CODE_ADDRESS
        wave.sgpr[EXEC] = wave.sgpr[EXEC + 1] = 0xFFFFFFFF
        wave.initialized_sgprs, wave.initialized_vgprs = sgprs, vgprs
    return result


def assemble(text: str, arch: str = "gfx942") -> bytes:
    """Machine code of assembly text, by the assembler of the `ziglang` wheel (not by what the translator
    decodes with)."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "a.s", Path(folder) / "a.o"
        source.write_text(text + "\n")
        command = [
            sys.executable,
            "-m",
            "ziglang",
            "clang",
            "-cc1as",
            "-triple",
            "amdgcn-amd-amdhsa",
            "-target-cpu",
            arch,
            "-filetype",
            "obj",
            str(source),
            "-o",
            str(target),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        data = target.read_bytes()
    sections, size, count = (struct.unpack_from(f, data, at)[0] for f, at in (("<Q", 40), ("<H", 58), ("<H", 60)))
    for i in range(count):
        kind, flags, _, offset, length = struct.unpack_from("<IQQQQ", data, sections + i * size + 4)
        if kind == 1 and flags & 4:  # PROGBITS, executable
            return data[offset : offset + length]
    raise AssertionError("no code")


def kernel(text: str, arch: str = "gfx942", strict: bool = False):
    """Assembly text (without its s_endpgm) as a callable kernel."""
    return load((assemble(text, arch),), arch, strict)[0]


@functools.cache
def load(codes: tuple[bytes, ...], arch: str = "gfx942", strict: bool = False) -> list:
    """Each machine code (without its s_endpgm) as a callable kernel; all in one shared object."""
    names = [f"case_{i}" for i in range(len(codes))]

    def sources() -> dict[str, str]:
        files = {}
        for part in range(0, len(codes), 64):
            texts = [
                translate.translate_kernel(code + S_ENDPGM, 0, name, arch, strict)
                for code, name in zip(codes[part : part + 64], names[part : part + 64], strict=False)
            ]
            for _i, (text, name) in enumerate(zip(texts, names[part : part + 64], strict=False)):
                files[f"{name}.c"] = text
        return files

    headers = "".join(path.read_text() for path in sorted(HEADERS.iterdir()) if path.suffix in (".c", ".h", ".py"))
    key = content_key(headers, arch, str(strict), hashlib.sha256(b"|".join(codes)).hexdigest())
    objects = module_loader.run_time_objects(strict)
    library = ctypes.CDLL(str(build_shared_object(key, "cases.so", sources, HEADERS, objects)))
    return [getattr(library, translate.mangled_name(name)) for name in names]
