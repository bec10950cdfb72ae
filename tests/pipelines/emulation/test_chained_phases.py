"""Phases of one dispatch whose workgroups wait for those of the phase before."""

import numpy as np
import pytest

from predecode.custom_kernels.composition import Composition, Part
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.targets import GFX942
from predecode.custom_kernels.toolchain import Toolchain
from tests.pipelines.emulation.hip_calls import SUCCESS, Hip

MADE, EARLY, LATE, TOTALS, ASIDE = 40, 7, 5, 9, 23
BODIES = {
    "make": """
#include "compiler.h"
DEVICE void make(Workgroup workgroup, const int *turn, int *made) {
  if (thread_id() == 0) made[workgroup.x] = *turn + workgroup.x;
}
""",
    "add_early": """
#include "grid.h"
DEVICE void add_early(EarlyWorkgroup workgroup, const int *made, int *sums) {
  workgroup.await_inputs();
  int sum = 0;
  for (int i = 0; i < MADE; ++i) sum += made[i];
  if (thread_id() == 0) sums[workgroup.x] = sum;
}
""",
    "add_late": """
#include "compiler.h"
DEVICE void add_late(Workgroup workgroup, const int *made, int *sums) {
  int sum = 0;
  for (int i = 0; i < MADE; ++i) sum += made[i];
  if (thread_id() == 0) sums[workgroup.x] = -sum;
}
""",
    "aside": """
#include "compiler.h"
DEVICE void aside(Workgroup workgroup, const int *made, int *copies) {
  if (thread_id() == 0) copies[workgroup.x] = made[workgroup.x];
}
""",
    "total": """
#include "grid.h"
DEVICE void total(EarlyWorkgroup workgroup, const int *early, const int *late, int *totals) {
  workgroup.await_inputs();
  int sum = 0;
  for (int i = 0; i < EARLY; ++i) sum += early[i];
  for (int i = 0; i < LATE; ++i) sum += late[i];
  if (thread_id() == 0) totals[workgroup.x] = sum + workgroup.x;
}
""",
}


def part(
    folder, name: str, workgroups: int, pointers: tuple[int, ...], awaited: int | None = None, made: int = MADE
) -> Part:
    source = folder / f"{name}.hip"
    source.write_text(BODIES[name])
    counts = ("MADE", made), ("EARLY", EARLY), ("LATE", LATE)
    launch = Launch(str(source), name, (), (), (workgroups, 1, 1), (256, 1, 1), counts)
    return Part(launch, pointers, writes=frozenset(pointers[1:]), awaited=awaited)


@pytest.mark.parametrize("is_strict", [True, False], ids=["strict", "fast"])
def test_every_launch_waits_anew_and_leaves_the_words_zero(tmp_path, is_strict):
    first = (part(tmp_path, "make", MADE, (0, 1)),)
    aside = part(tmp_path, "aside", ASIDE, (1, 6), awaited=0)
    then = part(tmp_path, "add_early", EARLY, (1, 2)), aside, part(tmp_path, "add_late", LATE, (1, 3))
    last = (part(tmp_path, "total", TOTALS, (2, 3, 4)),)
    composition = Composition((first, then, last), 7, state=5)
    code = Toolchain().build(composition, GFX942)
    hip = Hip(GFX942.arch, strict=is_strict)
    try:
        sizes = MADE, EARLY, LATE, TOTALS, 4, ASIDE
        made, early, late, totals, words, copies = (hip.upload(np.zeros(n, np.int32)) for n in sizes)
        function = hip.function(code.data, composition.symbol)
        for turn in (3, 500, 7000):
            pointers = hip.upload(np.array([turn], np.int32)), made, early, late, totals, words, copies
            assert hip.launch(function, composition.workgroups, (256,), *pointers) == SUCCESS, hip.fault()
            total = MADE * turn + MADE * (MADE - 1) // 2
            assert hip.download(early, EARLY, np.int32).tolist() == [total] * EARLY
            assert hip.download(late, LATE, np.int32).tolist() == [-total] * LATE
            expected = [(EARLY - LATE) * total + i for i in range(TOTALS)]
            assert hip.download(totals, TOTALS, np.int32).tolist() == expected
            assert hip.download(copies, ASIDE, np.int32).tolist() == [turn + i for i in range(ASIDE)]
            assert hip.download(words, 4, np.int32).tolist() == [0] * 4
    finally:
        hip.unload_all()


@pytest.mark.parametrize("is_strict", [True, False], ids=["strict", "fast"])
def test_the_first_workgroups_alone_are_waited_for(tmp_path, is_strict):
    first = (part(tmp_path, "make", MADE, (0, 1), awaited=EARLY),)
    last = (part(tmp_path, "add_early", LATE, (1, 2), made=EARLY),)
    composition = Composition((first, last), 4, state=3)
    code = Toolchain().build(composition, GFX942)
    hip = Hip(GFX942.arch, strict=is_strict)
    try:
        made, sums, words = (hip.upload(np.zeros(n, np.int32)) for n in (MADE, LATE, 2))
        function = hip.function(code.data, composition.symbol)
        for turn in (3, 500, 7000):
            pointers = hip.upload(np.array([turn], np.int32)), made, sums, words
            assert hip.launch(function, composition.workgroups, (256,), *pointers) == SUCCESS, hip.fault()
            assert hip.download(sums, LATE, np.int32).tolist() == [EARLY * turn + EARLY * (EARLY - 1) // 2] * LATE
            assert hip.download(made, MADE, np.int32).tolist() == [turn + i for i in range(MADE)]
            assert hip.download(words, 2, np.int32).tolist() == [0] * 2
    finally:
        hip.unload_all()
