"""Prologue fusion: a kernel makes again, for itself, the few rows that another op makes for it.

To wait for another op costs a kernel more time than to normalise, quantise or route a few rows does. An op that does so
is defined like any other; what it stands for is declared here, and put into a program by export/fuse_prologues.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from predecode.custom_kernels.op import Call, Op
from predecode.custom_kernels.targets import Target

Pays = Callable[[Target, Call], bool]
"""Whether a fused op, as it would be called, is faster than the two that it stands for."""
PROLOGUES: list["Prologue"] = []


@dataclass(frozen=True, slots=True)
class Prologue:
    """``fused`` is op ``consumer`` that makes for itself what op ``producer`` makes for it.

    ``through`` are the consumer's arguments that are replaced, with the index of the producer's result that each is.
    The fused op has the results of the consumer. Of its arguments, those in ``producer_names`` are the producer's of
    the name given there; the others are the consumer's of the same name.
    """

    fused: Op
    producer: str
    consumer: str
    through: Mapping[str, int]
    producer_names: Mapping[str, str]
    pays: Pays


def define_prologue(prologue: Prologue) -> None:
    """Let programs be exported with ``prologue``."""
    PROLOGUES.append(prologue)


def for_rows(argument: str, fewest: int, most: int) -> Pays:
    """It pays for ``fewest`` to ``most`` rows of ``argument``, where ops wait for each other in one dispatch."""
    return lambda target, call: target.starts_in_order and fewest <= call[argument].shape[0] <= most


def for_few_rows(argument: str, most: int) -> Pays:
    """It pays for at most ``most`` rows of ``argument``, where ops wait for each other in one dispatch."""
    return for_rows(argument, 1, most)
