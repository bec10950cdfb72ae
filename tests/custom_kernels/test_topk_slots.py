"""`topk_slots` against a search, row by row."""

import math

import pytest
import torch

from predecode.custom_kernels.formats import ELEMENT_FORMATS
from predecode.custom_kernels.topk_slots import OP, topk_slots
from tests.custom_kernels.cases.case import mismatch
from tests.custom_kernels.cases.topk_slots import cases

CASES = cases(ELEMENT_FORMATS["e4m3fn"])


def brute(logits, lengths, block_table, topk):
    result = torch.full((len(logits), topk), -1, dtype=torch.int32)
    for row, length in enumerate(lengths.tolist()):
        scores = logits[row, :length].tolist()
        better_first = sorted(range(length), key=lambda p: (not math.isnan(scores[p]), -scores[p], p))
        for rank, position in enumerate(sorted(better_first[:topk])):
            result[row, rank] = int(block_table[row, position // 64]) * 64 + position % 64
    return result


@pytest.mark.parametrize("case", CASES, ids=[c.label for c in CASES])
def test_equals_the_search(case):
    assert mismatch(OP.overload(*case.arguments), brute(*case.arguments), case.compare[0]) is None


def test_other_selections_are_noticed():
    by_label = {case.label: case for case in CASES}

    def differs(label, change):
        case = by_label[label]
        return mismatch(OP.overload(*change(*case.arguments)), brute(*case.arguments), case.compare[0])

    assert differs("best of 64", lambda x, n, t, k: (-x, n, t, k)), "the smallest"
    last = torch.arange(384.0).expand(2, -1)
    assert differs("all equal", lambda x, n, t, k: (last, n, t, k)), "the last of equals"
    assert differs("pages backwards", lambda x, n, t, k: (x, n, t.flip(1), k)), "pages forwards"
    assert differs("lengths around topk", lambda x, n, t, k: (x, n - 1, t, k)), "a token too few"
    rounded = "equal but for the last bits"
    assert differs(rounded, lambda x, n, t, k: (x.bfloat16().float(), n, t, k)), "scores rounded on the way"


def test_a_wrong_order_is_noticed():
    case = next(c for c in CASES if c.label == "descending")
    result = OP.overload(*case.arguments)
    assert mismatch(result.flip(1), brute(*case.arguments), case.compare[0])


def test_opcheck():
    torch.library.opcheck(OP.overload, CASES[1].arguments)


def test_wrapper_refuses_other_shapes():
    logits, lengths = torch.zeros(2, 128), torch.tensor([3, 128], dtype=torch.int32)
    table = torch.zeros(2, 2, dtype=torch.int32)
    assert topk_slots(logits, lengths, table, 5).shape == (2, 5)
    with pytest.raises(ValueError, match=r"logits is torch.float32 \[2, 100\], expected torch.float32 \[2, 128\]"):
        topk_slots(logits[:, :100], lengths, table, 5)
    with pytest.raises(ValueError, match=r"lengths is torch.int64"):
        topk_slots(logits, lengths.long(), table, 5)
    with pytest.raises(ValueError, match=r"topk is 0"):
        topk_slots(logits, lengths, table, 0)
