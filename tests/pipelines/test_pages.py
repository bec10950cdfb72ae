"""Pages handed to sequences, against a map kept by hand."""

import numpy as np
import pytest

from predecode.pipelines.manifest import Geometry
from predecode.pipelines.pages import PagedSequence, PageError, PagePool


def geometry(pages=4, max_context=192) -> Geometry:
    return Geometry(64, pages, max_context, -(-max_context // 64))


def test_rows_of_several_sequences_never_share_a_slot():
    pool, sequences = PagePool(geometry(pages=6)), [PagedSequence(), PagedSequence()]
    owner = {}
    for step in range(150):
        placement = pool.append(sequences)
        for row, sequence in enumerate(sequences):
            slot = int(placement.slot_mapping[row])
            assert slot not in owner
            owner[slot] = row, step
            assert placement.positions[row] == step
            assert placement.lengths[row] == step + 1 == sequence.length
            assert placement.block_table[row, step // 64] * 64 + step % 64 == slot
    assert {len(s.pages) for s in sequences} == {3}
    assert pool.free_pages == 0


def test_dtypes_and_shapes():
    placement = PagePool(geometry()).append([PagedSequence()]).as_arguments()
    assert {name: (a.dtype.name, a.shape) for name, a in placement.items()} == {
        "positions": ("int64", (1,)),
        "lengths": ("int32", (1,)),
        "slot_mapping": ("int64", (1,)),
        "block_table": ("int32", (1, 3)),
    }


def test_a_chunk_of_one_sequence_equals_token_by_token():
    chunked, single = PagedSequence(), PagedSequence()
    pool = PagePool(geometry())
    chunk = pool.append([chunked] * 70)
    other = PagePool(geometry())
    tokens = [other.append([single]) for _ in range(70)]
    for name, array in chunk.as_arguments().items():
        joined = np.concatenate([token.as_arguments()[name] for token in tokens])
        if name != "block_table":
            np.testing.assert_array_equal(array, joined)
        else:
            np.testing.assert_array_equal(array[-1], joined[-1])


def test_released_pages_are_used_again():
    pool, first, second = PagePool(geometry(pages=1)), PagedSequence(), PagedSequence()
    pool.append([first])
    with pytest.raises(PageError, match="1 more pages are needed, 0 of 1 are free"):
        pool.append([second])
    assert second == PagedSequence()
    pool.release(first)
    assert first == PagedSequence()
    pool.append([second])
    assert second.pages == [0]


def test_nothing_is_taken_when_there_is_not_enough():
    pool, sequences = PagePool(geometry(pages=1)), [PagedSequence(), PagedSequence()]
    with pytest.raises(PageError):
        pool.append(sequences)
    assert pool.free_pages == 1
    assert sequences == [PagedSequence(), PagedSequence()]


def test_a_sequence_ends_at_the_exported_context():
    pool, sequence = PagePool(geometry(max_context=3)), PagedSequence()
    pool.append([sequence] * 3)
    with pytest.raises(PageError, match="4 tokens is longer than the artifact's context of 3"):
        pool.append([sequence])
