"""`stream_read` against NumPy's exclusive or."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.formats import E4M3FN
from predecode.custom_kernels.stream_read import OP, PIECE_WORDS, stream_read
from tests.custom_kernels.cases.stream_read import cases

ALL = [pytest.param(case, id=case.label) for case in cases(E4M3FN)]
WORDS, NONE = torch.zeros(2 * PIECE_WORDS, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)


@pytest.mark.parametrize("case", ALL)
def test_equals_numpy(case):
    data, before, first, pieces = case.arguments
    read = data.numpy()[first * PIECE_WORDS : (first + pieces) * PIECE_WORDS].reshape(pieces, PIECE_WORDS)
    expected = np.bitwise_xor.reduce(read, axis=1) ^ before.numpy()[0]
    np.testing.assert_array_equal(OP.overload(*case.arguments).numpy(), expected)


def test_every_word_counts():
    data, before, first, pieces = cases(E4M3FN)[1].arguments
    result = stream_read(data, before, first, pieces)
    for word in (0, 1, PIECE_WORDS - 1, PIECE_WORDS, len(data) - 1):
        changed = data.clone()
        changed[word] ^= 1 << 9
        other = stream_read(changed, before, first, pieces)
        assert (other != result).nonzero().flatten().tolist() == [word // PIECE_WORDS]


def test_what_was_read_before_is_in_every_result():
    data, before, first, pieces = cases(E4M3FN)[1].arguments
    result = stream_read(data, before, first, pieces)
    assert torch.equal(stream_read(data, before ^ 5, first, pieces), result ^ 5)


@pytest.mark.parametrize("data", [WORDS.float(), WORDS.view(2, -1), torch.zeros(0, dtype=torch.int32)])
@pytest.mark.parametrize("which", ["data", "before"])
def test_other_tensors_are_refused(data, which):
    with pytest.raises(TypeError, match=f"{which} is .*, expected int32"):
        stream_read(data, NONE, 0, 1) if which == "data" else stream_read(WORDS, data, 0, 1)


@pytest.mark.parametrize(("first", "pieces"), [(0, 3), (2, 1), (1, 2), (-1, 1), (0, 0)])
def test_pieces_that_are_not_there_are_refused(first, pieces):
    with pytest.raises(ValueError, match=f"{pieces} pieces from piece {first} on, of {2 * PIECE_WORDS} words"):
        stream_read(WORDS, NONE, first, pieces)


def test_passes_opcheck():
    torch.library.opcheck(OP.overload, cases(E4M3FN)[4].arguments)
