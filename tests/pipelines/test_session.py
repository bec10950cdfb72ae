"""Stepping the small artifact, against the same step in NumPy."""

import iree.runtime as rt
import numpy as np
import pytest

from predecode.pipelines import DecodeSession, PagedSequence, PagePool
from predecode.pipelines.device import DeviceError
from predecode.pipelines.step_inputs import StepInputError
from tests.pipelines.small_artifact import CACHE, GEOMETRY, PAGE_BYTES, PAGES, as_bfloat16, expected_step


@pytest.fixture
def session(step_artifact) -> DecodeSession:
    return DecodeSession.open(step_artifact)


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("device", ["local-task", "local-sync"])
def test_steps_equal_numpy(step_artifact, rows, device):
    """More steps than a page has tokens; two rows run padded in the entry point of three."""
    session = DecodeSession.open(step_artifact, device)
    pool, sequences = PagePool(GEOMETRY), [PagedSequence() for _ in range(rows)]
    cache = np.zeros((PAGES, PAGE_BYTES), np.int8)
    steps = 70 if rows < 3 else 60
    for step in range(steps):
        inputs = {"tokens": 1 + np.arange(rows) + step % 20, **pool.append(sequences).as_arguments()}
        results = session.step(**inputs)
        assert list(results) == ["logits"]
        np.testing.assert_allclose(results["logits"], expected_step(cache, **inputs), rtol=1e-5)
        np.testing.assert_array_equal(session.read_cache(CACHE), cache)


def test_padding_leaves_the_caches_alone(session):
    poison = np.full((PAGES, PAGE_BYTES), 77, np.int8)
    session.write_cache(CACHE, poison)
    placement = PagePool(GEOMETRY).append([PagedSequence(), PagedSequence()])
    session.step(tokens=[1, 2], **placement.as_arguments())
    changed = (session.read_cache(CACHE) != poison).any(axis=1)
    assert sorted(np.flatnonzero(changed)) == sorted(np.unique(placement.block_table[:, 0]))


def test_a_padding_row_of_the_caller_writes_nothing(session):
    placement = PagePool(GEOMETRY).append([PagedSequence()]).as_arguments()
    placement["slot_mapping"][0] = -1
    session.step(tokens=[5], **placement)
    assert not session.read_cache(CACHE).any()


def test_block_table_behind_the_length_may_hold_anything(session):
    placement = PagePool(GEOMETRY).append([PagedSequence()]).as_arguments()
    expected = session.step(tokens=[5], **placement)["logits"]
    session.reset()
    placement["block_table"][0, 1] = -12345
    np.testing.assert_array_equal(session.step(tokens=[5], **placement)["logits"], expected)
    assert placement["block_table"][0, 1] == -12345


def test_device_arrays_are_taken_too(session):
    placement = PagePool(GEOMETRY).append([PagedSequence()]).as_arguments()
    expected = session.step(tokens=[5], **placement)["logits"]
    tokens = rt.asdevicearray(session.device, np.array([5], np.int64))
    np.testing.assert_array_equal(session.step(tokens=tokens, **placement)["logits"], expected)


def test_reset_clears_the_caches(session):
    session.step(tokens=[5], **PagePool(GEOMETRY).append([PagedSequence()]).as_arguments())
    assert session.read_cache(CACHE).any()
    session.reset()
    assert not session.read_cache(CACHE).any()


def test_two_sessions_share_nothing(step_artifact, session):
    other = DecodeSession.open(step_artifact)
    session.step(tokens=[5], **PagePool(GEOMETRY).append([PagedSequence()]).as_arguments())
    assert not other.read_cache(CACHE).any()


def test_partial_sums_are_reduced_between_segments(layer_artifact):
    session = DecodeSession.open(layer_artifact)
    seen = []

    def reduce(partial):
        seen.append(np.array(partial.to_host(), np.float32)[:, 0].tolist())
        return partial.to_host() + as_bfloat16([[10.0]])

    results = session.step(
        hidden=as_bfloat16(np.full((1, 16), 2)), residual=as_bfloat16(np.full((1, 16), 4)), reduce=reduce
    )
    # attention: sum 6, partial 3; reduced 13; mlp: sum 19, partial 38. The second row is padding.
    assert seen == [[3.0, 0.0], [38.0, 20.0]]
    assert results["hidden"].shape == (1, 16)
    assert float(results["hidden"][0, 0]) == 48.0
    assert float(results["residual"][0, 0]) == 19.0


def test_partial_sums_need_a_reduction(layer_artifact):
    with pytest.raises(StepInputError, match="rank 0 of 2"):
        DecodeSession.open(layer_artifact).step(
            hidden=as_bfloat16(np.zeros((1, 16))), residual=as_bfloat16(np.zeros((1, 16)))
        )


def test_a_reduction_that_changes_the_shape_is_refused(layer_artifact):
    zeros = as_bfloat16(np.zeros((2, 16)))
    with pytest.raises(StepInputError, match=r"hidden is bfloat16\[1, 16\], the entry point takes"):
        DecodeSession.open(layer_artifact).step(hidden=zeros, residual=zeros, reduce=lambda x: x.to_host()[:1])


def test_caches_of_another_shape_are_refused(session):
    with pytest.raises(StepInputError, match=r"cache layers\.0\.latent_cache is int8"):
        session.write_cache(CACHE, np.zeros((PAGES, 4), np.int8))
    with pytest.raises(StepInputError, match="there is no cache 'nothing'"):
        session.read_cache("nothing")


def good_step() -> dict[str, np.ndarray]:
    """A valid step of two rows at positions 64 and 65 of two sequences."""
    pool, sequences = PagePool(GEOMETRY), [PagedSequence(), PagedSequence()]
    for _ in range(64):
        pool.append(sequences)
    return {"tokens": np.array([1, 2], np.int64), **pool.append(sequences).as_arguments()}


def test_the_good_step_is_good(session):
    session.step(**good_step())


def put(name, where, value):
    def change(step):
        step[name][where] = value

    return change


def replace_with(name, value):
    return lambda step: step.update({name: value})


BAD_STEPS = [
    (put("tokens", 0, 32), "tokens of row 0 is 32, expected 0 to 31"),
    (put("tokens", 1, -1), "tokens of row 1 is -1"),
    (put("positions", 1, 128), "positions of row 1 is 128, expected 0 to 127"),
    (put("positions", 1, -1), "positions of row 1 is -1"),
    (put("positions", 1, 63), "lengths of row 1 is 65, its position 63 makes it 64"),
    (put("lengths", 0, 129), "lengths of row 0 is 129, expected 0 to 128"),
    (put("lengths", 0, -1), "lengths of row 0 is -1"),
    (put("lengths", 0, 64), "lengths of row 0 is 64, its position 64 makes it 65"),
    (put("slot_mapping", 0, 256), "slot_mapping of row 0 is 256, expected -1 to 255"),
    (put("slot_mapping", 0, -2), "slot_mapping of row 0 is -2"),
    (put("slot_mapping", 0, 5), "slot_mapping of row 0 is 5, its position 64 and block table say"),
    (put("block_table", (1, 0), 4), "block_table of row 1, column 0 is 4"),
    (put("block_table", (1, 1), -1), "block_table of row 1, column 1 is -1"),
    (
        lambda s: s["slot_mapping"].__setitem__(1, s["slot_mapping"][0]),
        "slot_mapping of rows 0 and 1 are both",
    ),
    (replace_with("tokens", np.array([1.0, 2.0])), "tokens is float64, expected int64"),
    (replace_with("tokens", [[1], [2, 3]]), "tokens is no array"),
    (replace_with("tokens", ["the", "cat"]), "tokens is <U3, expected int64"),
    (replace_with("tokens", np.array([[1, 2]])), r"tokens has shape \[1, 2\], expected \[rows\]"),
    (replace_with("tokens", np.array([1, 2, 3])), "positions has 2 rows, tokens has 3"),
    (
        replace_with("lengths", np.array([2**40, 1])),
        "lengths holds 1099511627776, which does not fit in int32",
    ),
    (
        replace_with("block_table", np.zeros((2, 3), np.int32)),
        r"block_table has shape \[2, 3\], expected \[rows, 2\]",
    ),
    (replace_with("hidden", np.zeros(2)), "argument 'hidden' is unknown"),
    (lambda step: step.pop("lengths"), "argument lengths is missing"),
    (
        lambda step: step.update({n: np.concatenate([a, a]) for n, a in step.items()}),
        "a step of 4 rows was asked for",
    ),
    (lambda step: step.update({n: a[:0] for n, a in step.items()}), "a step of 0 rows was asked for"),
]


@pytest.mark.parametrize(("change", "message"), BAD_STEPS, ids=[message[:40] for _, message in BAD_STEPS])
def test_bad_steps_are_refused(session, change, message):
    step = good_step()
    change(step)
    with pytest.raises(StepInputError, match=message) as caught:
        session.step(**step)
    assert "\n" not in str(caught.value)
    assert not session.read_cache(CACHE).any()


def test_a_module_of_another_program_is_refused(step_artifact, layer_artifact):
    (step_artifact / "module.vmfb").write_bytes((layer_artifact / "module.vmfb").read_bytes())
    # The manifest's size and hash are made to fit, so that only loading can find it.
    from tests.pipelines.test_command_line import refresh_files

    refresh_files(step_artifact)
    with pytest.raises(Exception, match="has no function 'step_rows1'"):
        DecodeSession.open(step_artifact)


def test_parameters_of_another_scope_are_refused(step_artifact):
    from tests.pipelines.test_command_line import edit_manifest

    edit_manifest(step_artifact, "another", "parameters", "scope")
    with pytest.raises(DeviceError, match="cannot be loaded on local-task"):
        DecodeSession.open(step_artifact)
