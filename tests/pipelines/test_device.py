"""An artifact for one GPU refuses another: with a stand-in for the driver of a machine with GPUs."""

from types import SimpleNamespace

import iree.runtime as rt
import pytest

from predecode.pipelines.device import DeviceError, open_device
from predecode.pipelines.manifest import TargetRecord

GFX942 = TargetRecord("gfx942", "hip", "gfx942", "e4m3fnuz", 5.3e12, 304)
SM_90 = TargetRecord("sm_90", "cuda", "sm_90", "e4m3fn", 4.8e12, 132)


@pytest.fixture
def machine(monkeypatch):
    """Gives the machine devices that describe themselves by these texts; opening one gives its URI."""

    def install(*texts: str) -> None:
        devices = [{"device_id": i + 1, "path": f"GPU-{i}", "name": "gpu"} for i in range(len(texts))]
        driver = SimpleNamespace(
            query_available_devices=lambda: devices, dump_device_info=lambda number: texts[number - 1]
        )
        monkeypatch.setattr(rt, "get_driver", lambda name: driver)
        monkeypatch.setattr(rt, "get_device", lambda uri: uri)

    return install


MI300X = "\n- gpu-compute-unit-count: 304\n- gpu-arch-name: gfx942:sramecc+:xnack-\n"
MI355X = "\n- gpu-arch-name: gfx950\n"
H200 = "\n- gpu-compute-capability: 9.0\n"
L40 = "\n- gpu-compute-capability: 8.9\n"


@pytest.mark.parametrize(
    ("target", "text", "uri"),
    [(GFX942, MI300X, None), (GFX942, MI300X, "hip://0"), (SM_90, H200, "cuda://GPU-0")],
)
def test_the_right_chip_is_opened(machine, target, text, uri):
    machine(text)
    assert open_device(target, uri) == (uri or target.device)


@pytest.mark.parametrize(
    ("target", "text", "message"),
    [
        (GFX942, MI355X, "compiled for gfx942, device 'hip' is gfx950"),
        (SM_90, L40, "compiled for sm_90, device 'cuda' is sm_89"),
        (SM_90, "", "compiled for sm_90, device 'cuda' is of an unknown kind"),
    ],
)
def test_another_chip_is_refused(machine, target, text, message):
    machine(text)
    with pytest.raises(DeviceError, match=message):
        open_device(target)


def test_the_asked_for_device_counts(machine):
    machine(MI355X, MI300X)
    assert open_device(GFX942, "hip://1") == "hip://1"
    assert open_device(GFX942, "hip://GPU-1") == "hip://GPU-1"
    with pytest.raises(DeviceError, match="is gfx950"):
        open_device(GFX942, "hip://0")
    for uri in ("hip://2", "hip://GPU-7"):
        with pytest.raises(DeviceError, match="is not among the 2 hip devices"):
            open_device(GFX942, uri)


def test_a_machine_without_a_device(machine):
    machine()
    with pytest.raises(DeviceError, match=r"no hip device or driver library .* or use --device emulated"):
        open_device(GFX942)
    with pytest.raises(DeviceError, match=r"no cuda device or driver library .* one that has it$"):
        open_device(SM_90)


def test_a_device_that_does_not_open(machine, monkeypatch):
    machine(H200)

    def fail(uri):
        raise RuntimeError("Error creating device: c/runtime/x.c:5: RESOURCE_EXHAUSTED; busy; while invoking\nmore")

    monkeypatch.setattr(rt, "get_device", fail)
    with pytest.raises(DeviceError, match=r"\(Error creating device: RESOURCE_EXHAUSTED; busy\)"):
        open_device(SM_90)
