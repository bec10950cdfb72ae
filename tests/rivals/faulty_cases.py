"""Cases for the tests of `isolated`: some end their process, or never answer."""

import os
import time
from collections.abc import Iterator

from tests.rivals.kernel_case import KernelCase
from tests.rivals.report import RivalError


def case(op: str, prepare=lambda number: None) -> KernelCase:
    """Named ``op``; without a GPU its result is a reason."""
    return KernelCase(op, f"in process {os.getpid()}", 4, 10, 0, ("op", ""), prepare, lambda number, result: 0.0, 0.1)


def cases(family: str) -> Iterator[KernelCase]:
    """Families by the name of what goes wrong in them."""
    if family == "at once":
        os._exit(3)
    yield case("first")
    if family == "a library":
        raise RivalError("it is missing")
    if family == "a case":
        yield case("faulty", lambda number: os._exit(7))
    if family == "silence":
        yield case("silent", lambda number: time.sleep(1000))
    yield case("last")
