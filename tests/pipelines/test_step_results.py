"""Steps that are not waited for, and their results in other libraries' hands."""

import iree.runtime as rt
import numpy as np
import pytest
import torch

from predecode.pipelines import DecodeSession, PagedSequence, PagePool
from predecode.pipelines.device import DeviceError
from predecode.pipelines.device_tensor import DeviceTensor
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.staging import STEPS_UNDER_WAY, StagedInputs
from predecode.pipelines.submission import Timeline
from tests.pipelines.small_artifact import GEOMETRY, VOCABULARY, WIDTH, as_bfloat16


@pytest.fixture
def session(step_artifact) -> DecodeSession:
    return DecodeSession.open(step_artifact)


def decode_steps(rows: int, steps: int) -> list[dict[str, np.ndarray]]:
    pool, sequences = PagePool(GEOMETRY), [PagedSequence() for _ in range(rows)]
    return [
        {"tokens": (np.arange(rows) + step) % VOCABULARY, **pool.append(sequences).as_arguments()}
        for step in range(steps)
    ]


def test_steps_in_flight_give_what_waited_steps_give(step_artifact, session):
    inputs = decode_steps(2, 40)
    expected = [session.step(**step)["logits"] for step in inputs]
    other = DecodeSession.open(step_artifact)
    in_flight = [other.start_step(**step) for step in inputs]
    for results, logits in zip(in_flight, expected, strict=True):
        assert results.names == ("logits",) and results.rows == 2
        np.testing.assert_array_equal(results.to_host()["logits"], logits)
    np.testing.assert_array_equal(other.read_cache(*other.caches), session.read_cache(*session.caches))


def test_torch_shares_the_result(session):
    results = session.start_step(**decode_steps(2, 1)[0])
    tensor = torch.from_dlpack(results.tensor("logits"))
    logits = results.to_host()["logits"]
    # Two rows ran in the entry point of three; the third is padding.
    assert tensor.dtype == torch.float32 and tensor.shape == (3, WIDTH) == results.tensor("logits").shape
    np.testing.assert_array_equal(tensor[:2].numpy(), logits)
    tensor[0, 0] = 1234.5
    assert results.to_host()["logits"][0, 0] == 1234.5


def test_a_tensor_outlives_the_session(step_artifact):
    session = DecodeSession.open(step_artifact)
    results = session.start_step(**decode_steps(1, 1)[0])
    expected, tensor = results.to_host()["logits"], torch.from_dlpack(results.tensor("logits"))
    del results, session
    # Memory that was freed would be given to these.
    others = [np.full((1, WIDTH), 7, np.float32) for _ in range(100)]
    np.testing.assert_array_equal(tensor.numpy(), expected)
    assert len(others) == 100


def test_bfloat16_and_reduced_results_are_shared_too(layer_artifact):
    session = DecodeSession.open(layer_artifact)
    results = session.start_step(
        hidden=as_bfloat16(np.full((2, 16), 2)), residual=as_bfloat16(np.full((2, 16), 4)), reduce=lambda x: x.to_host()
    )
    for name, value in (("hidden", 18.0), ("residual", 9.0)):
        tensor = torch.from_dlpack(results.tensor(name))
        assert tensor.dtype == torch.bfloat16 and (tensor == value).all(), name


def test_a_failed_step_does_not_spoil_the_next(session, monkeypatch):
    step = decode_steps(1, 1)[0]
    expected = session.step(**step)["logits"]
    broken = Timeline(session.device)
    broken.next_fences()[1].fail("INTERNAL; the device fell over")
    monkeypatch.setattr(session, "_timeline", broken)
    with pytest.raises(DeviceError, match=r"local-task: .*the device fell over"):
        session.step(**step)
    np.testing.assert_array_equal(session.step(**step)["logits"], expected)


def test_results_are_arguments_of_the_next_step_where_they_are(layer_artifact, monkeypatch):
    session = DecodeSession.open(layer_artifact)
    first = {"hidden": as_bfloat16(np.full((2, 16), 2)), "residual": as_bfloat16(np.full((2, 16), 4))}
    device_reduce = {"reduce": lambda partial: partial}
    middle = session.step(**first, **device_reduce)
    expected = session.step(**middle, **device_reduce)
    on_device = session.start_step(**first, **device_reduce)
    arrays = {name: on_device.tensor(name).array for name in on_device.names}
    monkeypatch.setattr(StagedInputs, "write", lambda staged, timeline, values: dict.fromkeys(values, "copied"))
    results = session.start_step(**arrays, **device_reduce).to_host()
    for name, value in expected.items():
        np.testing.assert_array_equal(results[name], value)


def test_activations_on_the_device_are_padded_after_they_are_complete(layer_artifact):
    session = DecodeSession.open(layer_artifact)
    given = {name: as_bfloat16(np.full((1, 16), value)) for name, value in (("hidden", 2), ("residual", 4))}
    expected = session.step(**given, reduce=lambda partial: partial)
    on_device = {name: rt.asdevicearray(session.device, array) for name, array in given.items()}
    results = session.step(**on_device, reduce=lambda partial: partial)
    for name, value in expected.items():
        np.testing.assert_array_equal(results[name], value)


def test_more_steps_under_way_than_there_are_staging_buffers(step_artifact):
    session = DecodeSession.open(step_artifact)
    inputs = decode_steps(1, 5 * STEPS_UNDER_WAY)
    expected = [session.step(**step)["logits"] for step in inputs]
    session.reset()
    in_flight = [session.start_step(**step) for step in inputs]
    for results, logits in zip(in_flight, expected, strict=True):
        np.testing.assert_array_equal(results.to_host()["logits"], logits)


def test_host_memory_is_not_written_again_before_it_was_read(session):
    waited = []

    class Watched(Timeline):
        def wait(self, point=None):
            waited.append(point)
            super().wait(point)

    timeline = Watched(session.device)
    spec = next(spec for spec in session.manifest.segments(1)[0].arguments if spec.name == "tokens")
    staged = StagedInputs(session.device, {"tokens": spec})
    for step in range(STEPS_UNDER_WAY + 2):
        array = staged.write(timeline, {"tokens": np.array([step], np.int64)})["tokens"]
    assert waited == [1, 2]
    timeline.wait()
    assert array.to_host() == [STEPS_UNDER_WAY + 1]


def test_an_unknown_result_is_refused(session):
    with pytest.raises(KeyError):
        session.start_step(**decode_steps(1, 1)[0]).tensor("hidden")


@pytest.mark.parametrize("uri", ["emulated", "cuda://GPU-1234", "vulkan"])
def test_memory_that_others_cannot_name_is_not_shared(session, uri):
    array = session.start_step(**decode_steps(1, 1)[0]).tensor("logits").array
    with pytest.raises(PredecodeError, match="cannot be shared with other libraries"):
        DeviceTensor(array, session.device, uri)


@pytest.mark.parametrize(
    ("uri", "place"), [("cuda", (2, 0)), ("cuda://3", (2, 3)), ("hip://1", (10, 1)), ("local-sync", (1, 0))]
)
def test_devices_have_their_dlpack_names(session, uri, place):
    array = session.start_step(**decode_steps(1, 1)[0]).tensor("logits").array
    assert DeviceTensor(array, session.device, uri).__dlpack_device__() == place


def test_a_device_is_freed_after_what_is_on_it(session):
    """Attributes are freed in the order they were set; hip's driver crashes where a device goes first."""
    results = session.start_step(**decode_steps(1, 1)[0])
    assert list(vars(session))[-1] == "device"
    assert list(vars(results))[-1] == "_session"
