"""`stream_read` against NumPy's exclusive or."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.formats import E4M3FN
from predecode.custom_kernels.stream_read import OP, PIECE_WORDS, stream_read
from tests.custom_kernels.cases.stream_read import cases

ALL = [pytest.param(case, id=case.label) for case in cases(E4M3FN)]


@pytest.mark.parametrize("case", ALL)
def test_equals_numpy(case):
    (data,) = case.arguments
    expected = np.bitwise_xor.reduce(data.numpy().reshape(-1, PIECE_WORDS), axis=1)
    np.testing.assert_array_equal(OP.overload(data).numpy(), expected)


def test_every_word_counts():
    (data,) = cases(E4M3FN)[1].arguments
    before = stream_read(data)
    for word in (0, 1, PIECE_WORDS - 1, PIECE_WORDS, len(data) - 1):
        changed = data.clone()
        changed[word] ^= 1 << 9
        assert (stream_read(changed) != before).nonzero().flatten().tolist() == [word // PIECE_WORDS]


@pytest.mark.parametrize(
    "data", [torch.zeros(PIECE_WORDS), torch.zeros(5, dtype=torch.int32), torch.zeros(0, dtype=torch.int32)]
)
def test_other_buffers_are_refused(data):
    with pytest.raises(TypeError, match="expected int32"):
        stream_read(data)


def test_passes_opcheck():
    torch.library.opcheck(OP.overload, cases(E4M3FN)[0].arguments)
