"""Cases of `stream_read`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.stream_read import PIECE_WORDS
from tests.custom_kernels.cases.case import EXACT, Case


def cases(element_format: ElementFormat) -> list[Case]:
    """The op reads no quantised tensor: the same cases for every format."""
    generator = torch.Generator().manual_seed(23)

    def random(words):
        return torch.randint(-(2**31), 2**31, (words,), generator=generator).to(torch.int32)

    none = torch.zeros(1, dtype=torch.int32)
    one_word = torch.zeros(2 * PIECE_WORDS, dtype=torch.int32)
    one_word[[3, PIECE_WORDS - 1, PIECE_WORDS]] = torch.tensor([5, -(2**31), 7], dtype=torch.int32)
    everywhere = torch.full((2 * PIECE_WORDS,), -7, dtype=torch.int32)
    return [
        Case("one piece", (random(PIECE_WORDS), none, 0, 1), (EXACT,)),
        Case("3 pieces", (random(3 * PIECE_WORDS), random(1), 0, 3), (EXACT,)),
        Case("one word everywhere", (everywhere, none, 0, 2), (EXACT,)),
        Case("single words, first and last of a piece", (one_word, none, 0, 2), (EXACT,)),
        Case("pieces in the middle", (random(5 * PIECE_WORDS), random(3), 1, 3), (EXACT,)),
        Case("the last piece, words behind it", (random(4 * PIECE_WORDS + 100), random(1), 3, 1), (EXACT,)),
    ]
