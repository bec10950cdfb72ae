"""Launches: registers, arguments, waves and workgroups; kernels in C stand in for translated ones."""

import ctypes

import numpy as np
import pytest

from predecode.pipelines.emulation import device_library, driver, host_compiler, module_loader
from tests.pipelines.emulation import hip_calls
from tests.pipelines.emulation.hip_calls import LAUNCH_FAILURE, SUCCESS, Hip, compile_hip

# What the descriptor and the metadata say; the machine code itself is never run.
DECLARATION = """
extern "C" __attribute__((global)) void kernel(unsigned *out, char small, unsigned n) {
  __attribute__((shared)) static unsigned tile[64];
  unsigned x = __builtin_amdgcn_workitem_id_x();
  x += __builtin_amdgcn_workitem_id_y() + __builtin_amdgcn_workitem_id_z();
  tile[x & 63] = __builtin_amdgcn_workgroup_id_y() + __builtin_amdgcn_workgroup_id_z();
  const unsigned short *hidden = (const unsigned short *)__builtin_amdgcn_implicitarg_ptr();
  out[__builtin_amdgcn_workgroup_id_x()] = tile[n] + small + hidden[6] + x;
}
"""
PROLOGUE = """
#include "wave.h"
#include <string.h>
struct Arguments { unsigned *out; char small; unsigned n; };
static struct Arguments *arguments(struct Wave *wave) {
  return (struct Arguments *)(uintptr_t)(wave->sgpr[0] | (uint64_t)wave->sgpr[1] << 32);
}
const char *kernel_text(uint64_t address) { return "v_stand_in"; }
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory) -> bytes:
    return compile_hip(tmp_path_factory.mktemp("code"), DECLARATION, "gfx942")


@pytest.fixture
def launch(code, monkeypatch):
    """launch(body, grid, block, words, n, strict) -> (status, words of `out`, fault)."""

    def run(body: str, grid, block, words: int, n: int = 0, strict: bool = True):
        table = '__attribute__((visibility("default"))) void *const kernel_table[] = {kernel, kernel_text};'
        source = f"{PROLOGUE}\nint kernel(struct Wave *wave) {{\n{body}\n}}\n{table}\n"
        key = host_compiler.content_key("stand-in", source, (device_library.ISA_FOLDER / "wave.h").read_bytes())

        def build(parsed, is_strict):
            return host_compiler.build_shared_object(
                key, "kernels.so", lambda: {"stand_in.c": source}, device_library.ISA_FOLDER
            )

        monkeypatch.setattr(module_loader, "build_kernels", build)
        hip = Hip(strict=strict)
        driver.take_dispatch_counters()
        out = hip.upload(np.zeros(words, np.uint32))
        function = hip.function(code, "kernel")
        status = hip.launch(function, grid, block, out, ctypes.c_char(b"\x05"), ctypes.c_uint32(n))
        fault = hip.fault()
        hip.unload_all()
        return status, hip.download(out, words, np.uint32), fault

    return run


def test_registers_and_arguments(launch):
    body = """
      struct Arguments *given = arguments(wave);
      unsigned group = wave->workgroup->id[0] + 2 * (wave->workgroup->id[1] + 3 * wave->workgroup->id[2]);
      unsigned *out = given->out + (group * 2 + wave->index_in_workgroup) * 72;
      for (int lane = 0; lane < 64; ++lane) out[lane] = wave->vgpr[0][lane];
      out[64] = wave->sgpr[SGPR_EXEC];
      out[65] = wave->sgpr[SGPR_EXEC + 1];
      out[66] = wave->initialized_sgprs;
      for (unsigned i = 0; i < 3; ++i) out[67 + i] = wave->sgpr[wave->initialized_sgprs - 3 + i];
      out[70] = given->n + (unsigned)given->small + wave->workgroup->lds_size;
      const unsigned *hidden = (const unsigned *)(given + 1);
      out[71] = hidden[0] | hidden[1] << 8 | hidden[2] << 16;
      return WAVE_ENDED;
    """
    status, out, fault = launch(body, (2, 3, 2), (10, 4, 2), 12 * 2 * 72, n=1000)
    assert status == SUCCESS, fault
    out = out.reshape(2, 3, 2, 2, 72)
    z, y, x = np.meshgrid(range(2), range(4), range(10), indexing="ij")
    packed = np.zeros(128, np.uint32)
    packed[:80] = (x | y << 10 | z << 20).ravel()
    for index in np.ndindex(2, 3, 2):
        got = out[index]
        np.testing.assert_array_equal(got[:, :64].ravel(), packed)
        np.testing.assert_array_equal(got[:, 64:66], [[2**32 - 1, 2**32 - 1], [0xFFFF, 0]])
        np.testing.assert_array_equal(got[:, 67:70], [index[::-1]] * 2)
        assert (got[:, 70] == 1000 + 5 + 256).all()
        assert (got[:, 71] == (2 | 3 << 8 | 2 << 16)).all()  # hidden block counts
    counters = driver.take_dispatch_counters()
    assert [(c.kernel, c.grid, c.block, c.waves) for c in counters] == [("kernel", (2, 3, 2), (10, 4, 2), 24)]


def test_a_barrier_holds_until_every_running_wave_arrived(launch):
    # Wave 3 ends without arriving, wave 1 dawdles; the others count up together and see each other's steps.
    body = """
      unsigned *out = arguments(wave)->out, step = wave->resume;
      if (wave->index_in_workgroup == 3) return WAVE_ENDED;
      if (wave->index_in_workgroup == 1 && ++wave->scc % 4) return WAVE_YIELDED;
      for (unsigned other = 0; other < 3; ++other)
        if (out[other] != step && out[other] != step + 1) out[3] = 1;
      if (step && out[0] + out[1] + out[2] < 3 * step) out[3] = 2;
      out[wave->index_in_workgroup] = ++wave->resume;
      return step == 9 ? WAVE_ENDED : WAVE_BARRIER;
    """
    status, out, fault = launch(body, (1,), (256,), 4)
    assert status == SUCCESS, fault
    np.testing.assert_array_equal(out, [10, 10, 10, 0])


def test_workgroups_that_wait_for_later_ones_make_progress(launch):
    # Workgroup i waits until workgroup i + 1 has written: the first can end only after all others started.
    body = """
      unsigned *out = arguments(wave)->out, id = wave->workgroup->id[0];
      if (id < 199 && !__atomic_load_n(&out[id + 1], __ATOMIC_ACQUIRE)) return WAVE_YIELDED;
      __atomic_store_n(&out[id], 1, __ATOMIC_RELEASE);
      return WAVE_ENDED;
    """
    status, out, fault = launch(body, (200,), (64,), 200, strict=False)
    assert status == SUCCESS, fault
    assert out.all()


def test_a_fault_stops_the_launch_and_names_its_place(launch):
    body = """
      if (wave->workgroup->id[0] != 1) return WAVE_YIELDED;
      wave->workgroup->report(wave->workgroup, wave, "reads v7, which was never written", 11, 0);
      return WAVE_FAULTED;
    """
    status, _, fault = launch(body, (3,), (128,), 4)
    assert status == LAUNCH_FAILURE
    assert "kernel kernel, workgroup (1, 0, 0), wave 0, lane 11" in fault
    assert "`v_stand_in`" in fault and fault.endswith("reads v7, which was never written")


def _store_at(offset: str) -> str:
    return f"""
      uint64_t address = (uint64_t)(uintptr_t)arguments(wave)->out + {offset};
      if (wave->workgroup->check_global(wave->workgroup, address, 4, 1, 9, 0)) return WAVE_FAULTED;
      return WAVE_ENDED;
    """


@pytest.mark.parametrize(
    ("offset", "message"),
    [
        ("400", "0 bytes past the end of live buffer"),
        ("397", "at byte 397 of live buffer"),
        ("-1", "1 bytes before live buffer"),
    ],
)
def test_an_access_outside_its_buffer_is_a_fault(launch, offset, message):
    status, _, fault = launch(_store_at(offset), (1,), (64,), 100)
    assert status == LAUNCH_FAILURE
    assert "store of 4 bytes" in fault and "lane 9" in fault and message in fault


def test_the_last_bytes_of_a_buffer_are_accessible_and_lines_are_counted(launch):
    assert launch(_store_at("396"), (1,), (64,), 100)[0] == SUCCESS
    assert [c.cache_lines for c in driver.take_dispatch_counters()] == [1]
    assert launch(_store_at("(wave->workgroup->id[0] & 1 ? 126 : 0)"), (4,), (64,), 100)[0] == SUCCESS
    assert [c.cache_lines for c in driver.take_dispatch_counters()] == [2]


@pytest.mark.parametrize(
    ("grid", "block", "message"),
    [((1,), (1025,), "expected 1 to 1024"), ((1,), (32, 33), "32 x 33"), ((0,), (64,), "at least one")],
)
def test_impossible_launches_are_refused(launch, grid, block, message):
    status, _, fault = launch("return WAVE_ENDED;", grid, block, 4)
    assert status == LAUNCH_FAILURE and message in fault


def test_counters_are_summed_over_waves(launch):
    body = """
      wave->counters.valu += 3;
      wave->counters.bytes_loaded += 64;
      return WAVE_ENDED;
    """
    launch(body, (5,), (192,), 4, strict=False)
    (counters,) = driver.take_dispatch_counters()
    assert counters.waves == 15 and counters.wave_instructions["valu"] == 45 and counters.bytes_loaded == 960
    assert counters.cache_lines is None and counters.lds_bank_conflicts is None


def test_a_missing_kernel_names_those_that_exist(code, launch):
    launch("return WAVE_ENDED;", (1,), (64,), 4)
    hip = Hip()
    status, module = hip.load(code)
    function = ctypes.c_void_p()
    assert status == SUCCESS
    assert hip.library.hipModuleGetFunction(ctypes.byref(function), module, b"other") == hip_calls.NOT_FOUND
    assert "kernel other is not in the code object, which has: kernel" in hip.fault()
    hip.unload_all()
