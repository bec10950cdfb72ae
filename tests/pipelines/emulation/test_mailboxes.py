"""Results that the workgroups of a phase post, and those of the next one take."""

import numpy as np
import pytest

from predecode.custom_kernels.composition import Composition, Part
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.targets import GFX942
from predecode.custom_kernels.toolchain import Toolchain
from tests.pipelines.emulation.hip_calls import SUCCESS, Hip

WRITERS, READERS, MADE = 16, 4, 3
WORDS = WRITERS * 256
TAKEN_EACH = WORDS // READERS
BODIES = {
    "write": """
#include "mailbox.h"
DEVICE void write(Workgroup workgroup, const uint32 *words, float *posted) {
  int i = workgroup.x * 256 + thread_id();
  if (workgroup.posts) post(posted + i, __builtin_bit_cast(float, words[i]));
}
""",
    "write_pairs": """
#include "mailbox.h"
DEVICE void write_pairs(Workgroup workgroup, const uint32 *words, uint32 *posted) {
  int i = workgroup.x * 256 + thread_id();
  if (workgroup.posts) post((void *)(posted + i), words[i]);
}
""",
    "make": """
#include "compiler.h"
DEVICE void make(Workgroup workgroup, const uint32 *words, int *made) {
  if (thread_id() == 0) made[workgroup.x] = int(words[0] & 0xFFFF) + workgroup.x;
}
""",
    "read": """
#include "mailbox.h"
DEVICE void read(EarlyWorkgroup workgroup, float *posted, uint32 *taken) {
  workgroup.await_inputs();
  if (workgroup.takes())
    for (int i = workgroup.x * TAKEN_EACH + thread_id(); i < (workgroup.x + 1) * TAKEN_EACH; i += 256)
      taken[i] = __builtin_bit_cast(uint32, take(posted + i));
}
""",
    "read_pairs": """
#include "mailbox.h"
DEVICE void read_pairs(EarlyWorkgroup workgroup, bf16 *posted, uint32 *taken) {
  workgroup.await_inputs();
  if (!workgroup.takes()) return;
  for (int i = thread_id() * 4; i < TAKEN_EACH; i += 4 * 256) {
    int first = workgroup.x * TAKEN_EACH + i;
    float values[8];
    take_bf16x8(posted + 2 * first, values);
    for (int k = 0; k < 4; ++k) taken[first + k] = to_bf16x2(values[2 * k], values[2 * k + 1]);
  }
}
""",
    "copy": """
#include "compiler.h"
DEVICE void copy(Workgroup workgroup, const int *made, int *copies) {
  if (thread_id() == 0) copies[workgroup.x] = made[workgroup.x];
}
""",
    "add": """
#include "compiler.h"
DEVICE void add(Workgroup workgroup, const uint32 *taken, const int *copies, uint32 *sum) {
  if (thread_id() > 0) return;
  *sum = 0;
  for (int i = 0; i < MADE; ++i) *sum += copies[i];
  for (int i = 0; i < WORDS; ++i) *sum += taken[i];
}
""",
}


def part(folder, name: str, workgroups: int, pointers: tuple[int, ...], **how) -> Part:
    source = folder / f"{name}.hip"
    source.write_text(BODIES[name])
    counts = ("MADE", MADE), ("WORDS", WORDS), ("TAKEN_EACH", TAKEN_EACH)
    launch = Launch(str(source), name, (), (), (workgroups, 1, 1), (256, 1, 1), counts)
    return Part(launch, pointers, writes=frozenset(pointers[1:]), **how)


def some_words(turn: int) -> np.ndarray:
    words = np.random.default_rng(turn).integers(0, 2**32, WORDS, np.uint32)
    words[:4] = 0, 0x80000000, 0x7FFFFFFF, 0x00010000
    words[words & 0x7F807F80 == 0x7F807F80] = 1  # what is not a number is tested apart
    words[(words & 0x7F80) == 0x7F80] = 2
    words[(words & 0x7F800000) == 0x7F800000] = 3
    return words


@pytest.mark.parametrize("kind", ["", "_pairs"])
def test_words_are_taken_once_and_mailboxes_left_empty(tmp_path, kind):
    posting = part(tmp_path, f"write{kind}", WRITERS, (0, 1), awaited=0, posts=True)
    first = posting, part(tmp_path, "make", MADE, (0, 2))
    then = part(tmp_path, f"read{kind}", READERS, (1, 3), takes=True), part(tmp_path, "copy", MADE, (2, 4))
    composition = Composition((first, then, (part(tmp_path, "add", 1, (3, 4, 5)),)), 7, state=6)
    code = Toolchain().build(composition, GFX942)
    hip = Hip(GFX942.arch, strict=True)
    try:
        sizes = WORDS, MADE, WORDS, MADE, 1, 4
        posted, made, taken, copies, total, state = (hip.upload(np.zeros(n, np.uint32)) for n in sizes)
        function = hip.function(code.data, composition.symbol)
        for turn in range(3):
            words = some_words(turn)
            pointers = hip.upload(words), posted, made, taken, copies, total, state
            assert hip.launch(function, composition.workgroups, (256,), *pointers) == SUCCESS, hip.fault()
            np.testing.assert_array_equal(hip.download(taken, WORDS, np.uint32), words)
            assert not hip.download(posted, WORDS, np.uint32).any()
            assert not hip.download(state, 4, np.uint32).any()
            expected = int(words.sum(dtype=np.uint64)) + MADE * int(words[0] & 0xFFFF) + MADE * (MADE - 1) // 2
            assert hip.download(total, 1, np.uint32)[0] == expected % 2**32
    finally:
        hip.unload_all()


def test_the_word_that_cannot_be_posted_stays_not_a_number(tmp_path):
    """All ones would be posted as none, and waited for for ever."""
    posting = part(tmp_path, "write", WRITERS, (0, 1), awaited=0, posts=True)
    reading = part(tmp_path, "read", READERS, (1, 2), takes=True)
    composition = Composition(((posting,), (reading,)), 4, state=3)
    code = Toolchain().build(composition, GFX942)
    hip = Hip(GFX942.arch, strict=True)
    try:
        words = hip.upload(np.full(WORDS, 2**32 - 1, np.uint32))
        posted, taken, state = (hip.upload(np.zeros(n, np.uint32)) for n in (WORDS, WORDS, 4))
        function = hip.function(code.data, composition.symbol)
        launched = hip.launch(function, composition.workgroups, (256,), words, posted, taken, state)
        assert launched == SUCCESS, hip.fault()
        given = hip.download(taken, WORDS, np.uint32)
        assert np.isnan(given.view(np.float32)).all()
        assert np.isnan((given << 16).view(np.float32)).all()  # so are both halves as bfloat16
    finally:
        hip.unload_all()
