"""Memory, streams, events, graphs and unsupported calls of the emulated HIP library, called directly."""

import ctypes

import numpy as np
import pytest

from tests.pipelines.emulation import hip_calls
from tests.pipelines.emulation.hip_calls import DEVICE_TO_DEVICE, DEVICE_TO_HOST, HOST_TO_DEVICE, SUCCESS, Hip


@pytest.fixture
def hip() -> Hip:
    return Hip(strict=True)


def test_buffers_are_aligned_poisoned_and_apart(hip):
    first, second = hip.malloc(100), hip.malloc(100)
    assert first % 256 == second % 256 == 0
    assert abs(first - second) >= 100 + 256
    assert (hip.download(first, 100, np.uint8) == 0xFF).all()


def test_transfers_carry_every_byte(hip):
    data = np.arange(1000, dtype=np.int16)
    source = hip.upload(data)
    target = hip.malloc(data.nbytes)
    assert hip.copy(target, source, data.nbytes, DEVICE_TO_DEVICE) == SUCCESS
    np.testing.assert_array_equal(hip.download(target, 1000, np.int16), data)


@pytest.mark.parametrize(
    ("call", "value", "dtype"), [("D8", 0xA5, np.uint8), ("D16", 0x1234, np.uint16), ("D32", 77, np.uint32)]
)
def test_fills_write_each_element_and_no_more(hip, call, value, dtype):
    pointer = hip.malloc(12 * np.dtype(dtype).itemsize)
    fill = getattr(hip.library, f"hipMemset{call}Async")
    assert fill(ctypes.c_void_p(pointer), value, ctypes.c_size_t(10), None) == SUCCESS
    got = hip.download(pointer, 12, dtype)
    assert (got[:10] == value).all() and (got[10:] == np.iinfo(dtype).max).all()


def test_a_transfer_one_byte_too_long_is_refused(hip):
    pointer, host = hip.malloc(64), np.zeros(65, np.uint8)
    for target, source, kind in [
        (pointer, host.ctypes.data, HOST_TO_DEVICE),
        (host.ctypes.data, pointer, DEVICE_TO_HOST),
    ]:
        assert hip.copy(target, source, 64, kind) == SUCCESS
        assert hip.copy(target, source, 65, kind) == hip_calls.ILLEGAL_ADDRESS
        assert "65 bytes" in hip.fault()


def test_a_freed_buffer_is_recognised(hip):
    pointer = hip.malloc(512)
    assert hip.free(pointer) == SUCCESS
    host = np.zeros(4, np.uint8)
    assert hip.copy(host.ctypes.data, pointer + 8, 4, DEVICE_TO_HOST) == hip_calls.ILLEGAL_ADDRESS
    assert "at byte 8 of freed buffer" in hip.fault()
    assert hip.free(pointer) == hip_calls.INVALID_DEVICE_POINTER
    assert "is not the start of a live buffer" in hip.fault()
    assert hip.free(hip.malloc(64) + 1) == hip_calls.INVALID_DEVICE_POINTER
    hip.fault()


def test_unsupported_calls_name_themselves(hip, capfd):
    value = ctypes.c_int()
    assert hip.library.hipDeviceGetAttribute(ctypes.byref(value), 41, 0) == hip_calls.NOT_SUPPORTED
    assert hip.library.hipDeviceEnablePeerAccess(0, 0) == hip_calls.NOT_SUPPORTED
    printed = capfd.readouterr().err
    assert "hipDeviceGetAttribute(41) is not supported" in printed
    assert "hipDeviceEnablePeerAccess is not supported" in printed


def test_device_properties_are_the_chips(hip):
    value = ctypes.c_int()
    for ordinal, units, lds in [(0, 304, 65536), (1, 304, 65536), (2, 256, 163840), (3, 256, 163840)]:
        for attribute, expected in [(63, units), (74, lds), (87, 64)]:
            assert hip.library.hipDeviceGetAttribute(ctypes.byref(value), attribute, ordinal) == SUCCESS
            assert value.value == expected
    assert hip.library.hipDeviceGetAttribute(ctypes.byref(value), 63, 4) == 101
    properties = ctypes.create_string_buffer(1024)
    assert hip.library.hipGetDeviceProperties(properties, 3) == SUCCESS
    assert b"MI355X" in properties.raw[:256] and properties.raw[396:].startswith(b"gfx950:")


def test_events_wait_for_host_functions(hip):
    released, ran = [], []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def wait(argument):
        while not released:
            pass
        ran.append(argument)

    event = ctypes.c_void_p()
    assert hip.library.hipEventCreate(ctypes.byref(event)) == SUCCESS
    assert hip.library.hipLaunchHostFunc(None, wait, ctypes.c_void_p(5)) == SUCCESS
    assert hip.library.hipEventRecord(event, None) == SUCCESS
    assert hip.library.hipEventQuery(event) == hip_calls.NOT_READY
    released.append(True)
    assert hip.library.hipEventSynchronize(event) == SUCCESS
    assert ran == [5] and hip.library.hipEventQuery(event) == SUCCESS
    assert hip.library.hipEventDestroy(event) == SUCCESS


class _MemsetParameters(ctypes.Structure):
    _fields_ = (
        ("dst", ctypes.c_void_p),
        ("element_size", ctypes.c_uint32),
        ("height", ctypes.c_size_t),
        ("pitch", ctypes.c_size_t),
        ("value", ctypes.c_uint32),
        ("width", ctypes.c_size_t),
    )


def test_a_graph_runs_its_nodes_in_order_each_time(hip):
    pointer = hip.malloc(16)
    graph, instance, node = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    assert hip.library.hipGraphCreate(ctypes.byref(graph), 0) == SUCCESS
    for value, width in [(1, 4), (2, 2)]:
        fill = _MemsetParameters(pointer, 4, 1, 0, value, width)
        assert hip.library.hipGraphAddMemsetNode(ctypes.byref(node), graph, None, 0, ctypes.byref(fill)) == SUCCESS
    assert hip.library.hipGraphInstantiate(ctypes.byref(instance), graph, None, None, 0) == SUCCESS
    assert hip.library.hipGraphDestroy(graph) == SUCCESS
    for _ in range(2):
        assert hip.library.hipMemset(ctypes.c_void_p(pointer), 0, ctypes.c_size_t(16)) == SUCCESS
        assert hip.library.hipGraphLaunch(instance, None) == SUCCESS
        np.testing.assert_array_equal(hip.download(pointer, 4, np.uint32), [2, 2, 1, 1])
    assert hip.library.hipGraphExecDestroy(instance) == SUCCESS
