"""The Python surface: opening devices, faults as Python errors, counters, and what importing costs."""

import contextlib
import subprocess
import sys
from pathlib import Path

import iree.compiler.tools as compiler
import iree.runtime
import numpy as np
import pytest

from predecode.pipelines import emulation
from predecode.pipelines.emulation import driver
from predecode.pipelines.errors import PredecodeError

ADD = """func.func @add(%a: tensor<1000xf32>, %b: tensor<1000xf32>) -> tensor<1000xf32> {
  %r = arith.addf %a, %b : tensor<1000xf32>
  return %r : tensor<1000xf32>
}"""


@pytest.fixture(scope="module")
def modules() -> dict[str, bytes]:
    flags = "--iree-hal-target-device=hip"
    return {
        arch: compiler.compile_str(ADD, extra_args=[flags, f"--iree-rocm-target={arch}"])
        for arch in emulation.ARCHITECTURES
    }


def _load(module: bytes, device):
    config = iree.runtime.Config(device=device)
    return iree.runtime.load_vm_module(iree.runtime.VmModule.copy_buffer(config.vm_instance, module), config)


@pytest.mark.parametrize("strict", [True, False])
def test_both_architectures_run_in_one_process(modules, strict):
    emulation.dispatch_counters()
    emulation.pending_fault()
    values = np.arange(1000, dtype=np.float32)
    for arch in emulation.ARCHITECTURES:
        loaded = _load(modules[arch], emulation.open_device(arch, strict))
        np.testing.assert_array_equal(loaded.add(values, values[::-1].copy()).to_host(), np.full(1000, 999.0))
        (counters,) = emulation.dispatch_counters()
        assert counters.grid == (16, 1, 1) and counters.waves == 16
        assert counters.bytes_stored == 4000 and counters.bytes_loaded >= 8000
        assert (counters.cache_lines is not None) == strict
    assert emulation.pending_fault() is None and emulation.dispatch_counters() == []


@pytest.mark.parametrize("arch", emulation.ARCHITECTURES)
def test_parameters_load_and_a_cache_is_written_in_place(tmp_path, arch):
    text = (Path(__file__).parent / "mlir" / "linear_into_cache.mlir").read_text()
    flags = ["--iree-hal-target-device=hip", f"--iree-rocm-target={arch}"]
    generator = np.random.default_rng(0)
    weight = generator.integers(-4, 4, (64, 48)).astype(np.float32)
    index = iree.runtime.ParameterIndex()
    index.add_buffer("weight", weight.tobytes())
    index.create_archive_file(str(tmp_path / "weights.irpa"))

    device = emulation.open_device(arch, True)
    config = iree.runtime.Config(device=device)
    index = iree.runtime.ParameterIndex()
    index.load(str(tmp_path / "weights.irpa"))
    parameters = iree.runtime.create_io_parameters_module(config.vm_instance, index.create_provider(scope="model"))
    main = iree.runtime.VmModule.copy_buffer(config.vm_instance, compiler.compile_str(text, extra_args=flags))
    model = iree.runtime.load_vm_modules(parameters, main, config=config)[-1]
    expected = np.zeros((128, 48), np.float32)
    cache = iree.runtime.asdevicearray(device, expected)
    for row in (3, 40, 120):
        x = generator.integers(-4, 4, (8, 64)).astype(np.float32)
        expected[row : row + 8] = x @ weight
        model.main(x, cache, np.int32(row))
        np.testing.assert_array_equal(cache.to_host(), expected)


def test_the_other_architectures_module_is_one_clear_error(modules):
    emulation.pending_fault()
    with pytest.raises(RuntimeError, match="built for gfx950, but the device is gfx942"):
        _load(modules["gfx950"], emulation.open_device("gfx942", True))
    fault = emulation.pending_fault()
    assert isinstance(fault, PredecodeError) and "\n" not in str(fault)
    assert str(fault).startswith("code object is built for gfx950, but the device is gfx942: export")
    assert emulation.pending_fault() is None


def test_another_architecture_is_refused():
    with pytest.raises(PredecodeError, match="'gfx90a': expected one of gfx942, gfx950"):
        emulation.open_device("gfx90a", True)


def test_a_driver_of_a_real_device_is_refused(monkeypatch):
    real = contextlib.nullcontext({"AMD Instinct MI300X": 1})
    monkeypatch.setattr(driver, "_emulated_devices", lambda: real)
    with pytest.raises(PredecodeError, match="drives AMD Instinct MI300X, which is not the emulated one"):
        emulation.open_device("gfx942", True)


def test_nobody_gets_the_emulated_device_for_a_real_one():
    emulation.open_device("gfx942", False)
    for ask in (lambda: iree.runtime.get_driver("hip").query_available_devices(), _open_real_device):
        with pytest.raises((RuntimeError, ValueError), match="hipErrorNoDevice"):
            ask()


def _open_real_device():
    return iree.runtime.get_device("hip", cache=False)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "tinygrad" else object())
    with pytest.raises(PredecodeError, match=r"needs tinygrad: install it with .*predecode\[emulation\]"):
        emulation.open_device("gfx942", True)


def test_importing_costs_nothing():
    code = (
        "import sys, predecode.pipelines.emulation as emulation\n"
        "assert emulation.pending_fault() is None and emulation.dispatch_counters() == []\n"
        "print([name for name in ('tinygrad', 'msgpack', 'torch') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
