"""Instructions of PTX text by class. The driver makes machine code of it, so these are virtual instructions."""

import math
import re
from collections.abc import Iterator

from predecode.pipelines.kernel_record import InstructionCounts

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_LABEL = re.compile(r"^[\w$]+:\s*")
_PREDICATE = re.compile(r"^@!?%\w+\s+")
_BITS = re.compile(r"\.(?:[bsuf]|bf)(\d+)$")
_MATRIX = ("mma.", "wgmma.mma_async", "wmma.mma")
_SHARED = ("ld.shared", "st.shared", "ldmatrix", "stmatrix", "atom.shared", "red.shared")
_BARRIERS = ("bar.", "barrier.")
_UNIFORM_LOADS = ("ld.param", "ld.const")
_THREAD_PRIVATE = ("ld.local", "st.local", "st.param")


def count_ptx_instructions(body: str) -> InstructionCounts:
    """Counts over the text between the braces of one entry, each instruction once however often it runs."""
    return InstructionCounts.of(_classify(statement) for statement in _statements(body))


def _statements(body: str) -> Iterator[str]:
    for statement in _COMMENT.sub("", body).split(";"):
        statement = statement.strip(" \t\n{}")
        while label := _LABEL.match(statement):
            statement = statement[label.end() :]
        statement = _PREDICATE.sub("", statement)
        if statement and not statement.startswith("."):
            yield statement


def _classify(statement: str) -> tuple[str, int]:
    mnemonic = statement.split()[0]
    if mnemonic.startswith(_MATRIX):
        return "matrix", 0
    if mnemonic.startswith("cp.async") and ".global" in mnemonic:
        return "load", int(statement.split(",")[2])
    if mnemonic.startswith(_SHARED):
        return "shared_memory", 0
    if mnemonic.startswith(_BARRIERS):
        return "barrier", 0
    if mnemonic.startswith(_UNIFORM_LOADS):
        return "scalar_load", 0
    if mnemonic.startswith(("atom.", "red.")):
        return "atomic", 0
    if mnemonic.startswith(("ld.", "st.")) and not mnemonic.startswith(_THREAD_PRIVATE):
        return "load" if mnemonic.startswith("ld.") else "store", _lane_bytes(mnemonic)
    return "other", 0


def _lane_bytes(mnemonic: str) -> int:
    """Bytes of one thread's access: ``ld.global.v4.b32`` moves 16."""
    vector = math.prod(int(count) for count in re.findall(r"\.v(\d)\b", mnemonic))
    return vector * int(_BITS.search(mnemonic)[1]) // 8
