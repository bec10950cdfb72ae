"""HIP kernels built for both architectures, launched as a C program would, on the real translation."""

import ctypes

import numpy as np
import pytest

from predecode.pipelines.emulation import driver
from tests.pipelines.emulation import hip_calls
from tests.pipelines.emulation.hip_calls import LAUNCH_FAILURE, SUCCESS, Hip, compile_hip

SOURCE = """
#define KERNEL extern "C" __attribute__((global)) void
#define SHARED __attribute__((shared)) static
#define X __builtin_amdgcn_workitem_id_x()
#define GROUP __builtin_amdgcn_workgroup_id_x()
#define BARRIER \\
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup"), __builtin_amdgcn_s_barrier(), \\
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup")

KERNEL identify(unsigned *out) {
  const unsigned *hidden = (const unsigned *)__builtin_amdgcn_implicitarg_ptr();
  const unsigned short *sizes = (const unsigned short *)hidden;
  unsigned width = sizes[6], height = sizes[7];
  unsigned y = __builtin_amdgcn_workitem_id_y(), z = __builtin_amdgcn_workitem_id_z();
  unsigned gy = __builtin_amdgcn_workgroup_id_y(), gz = __builtin_amdgcn_workgroup_id_z();
  unsigned group = (gz * hidden[1] + gy) * hidden[0] + GROUP;
  unsigned item = (z * height + y) * width + X;
  out[group * width * height * sizes[8] + item] = X | y << 8 | z << 12 | GROUP << 16 | gy << 20 | gz << 24;
}

__attribute__((device)) float table[64] = {10, 20, 30, 40};
__attribute__((device)) float *first = table + 1;
KERNEL constants(float *out) { out[X] = table[X & 3] + *first; }

KERNEL scale(const float *in, float *out, float factor, int n) {
  int i = GROUP * 64 + X;
  if (i < n) out[i] = in[i] * factor;
}

KERNEL reverse(const int *in, int *out) {
  SHARED int tile[1024];
  tile[X] = in[GROUP * 1024 + X];
  BARRIER;
  out[GROUP * 1024 + X] = tile[1023 - X];
}

KERNEL sum(const float *in, float *out) {
  SHARED float partial[1024];
  partial[X] = in[GROUP * 1024 + X];
  BARRIER;
  for (unsigned stride = 512; stride; stride >>= 1) {
    if (X < stride) partial[X] += partial[X + stride];
    BARRIER;
  }
  if (!X) out[GROUP] = partial[0];
}

KERNEL collatz(const unsigned *in, unsigned *out) {
  unsigned value = in[GROUP * 64 + X], steps = 0;
  while (value != 1) {
    value = value & 1 ? 3 * value + 1 : value >> 1;
    ++steps;
  }
  out[GROUP * 64 + X] = steps;
}

KERNEL spill(const int *in, int *out, int n) {
  volatile int local[40];
  for (int i = 0; i < 40; ++i) local[i] = in[X] * i;
  int total = 0;
  for (int i = 0; i < n; ++i) total += local[(i * 7 + X) % 40];
  out[X] = total;
}

KERNEL histogram(const unsigned *in, unsigned *out) {
  __atomic_fetch_add(&out[in[GROUP * 256 + X] & 15], 1u, __ATOMIC_RELAXED);
}

KERNEL relay(unsigned *out) {  // Each workgroup waits for the next one.
  if (GROUP + 1 < 50)
    while (!__atomic_load_n(&out[GROUP + 1], __ATOMIC_ACQUIRE)) __builtin_amdgcn_s_sleep(1);
  __atomic_store_n(&out[GROUP], 50 - GROUP, __ATOMIC_RELEASE);
}
"""


@pytest.fixture(scope="module", params=["gfx942", "gfx950"])
def arch(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def code(tmp_path_factory, arch) -> bytes:
    return compile_hip(tmp_path_factory.mktemp("code"), SOURCE, arch)


@pytest.fixture(scope="module", params=[True, False], ids=["strict", "fast"])
def hip(request, arch, code) -> Hip:
    hip = Hip(arch, request.param)
    yield hip
    hip.unload_all()


@pytest.fixture(scope="module")
def kernels(hip, code):
    return {name: hip.function(code, name) for name in _names()}


def _names() -> list[str]:
    return [line.split("(")[0].split()[1] for line in SOURCE.splitlines() if line.startswith("KERNEL")]


def _i32(value: int) -> ctypes.c_int32:
    return ctypes.c_int32(value)


def test_every_work_item_knows_its_place(hip, kernels):
    out = hip.malloc(4 * 3 * 2 * 2 * 70)
    assert hip.launch(kernels["identify"], (3, 2, 2), (7, 5, 2), out) == SUCCESS, hip.fault()
    got = hip.download(out, (2, 2, 3, 2, 5, 7), np.uint32)
    gz, gy, gx, z, y, x = np.meshgrid(*(range(size) for size in got.shape), indexing="ij")
    np.testing.assert_array_equal(got, x | y << 8 | z << 12 | gx << 16 | gy << 20 | gz << 24)


def test_device_variables_are_placed_and_relocated(hip, kernels):
    out = hip.malloc(64 * 4)
    assert hip.launch(kernels["constants"], (1,), (64,), out) == SUCCESS, hip.fault()
    np.testing.assert_array_equal(hip.download(out, 64, np.float32), np.tile([30, 40, 50, 60], 16))


def test_floats_and_sizes_arrive(hip, kernels):
    values = np.random.default_rng(0).normal(size=150).astype(np.float32)
    source, out = hip.upload(values), hip.upload(np.zeros(192, np.float32))
    assert hip.launch(kernels["scale"], (3,), (64,), source, out, ctypes.c_float(1.5), _i32(150)) == SUCCESS
    got = hip.download(out, 192, np.float32)
    np.testing.assert_array_equal(got[:150], values * np.float32(1.5))
    assert not got[150:].any()


@pytest.mark.parametrize("groups", [1, 7])
def test_sixteen_waves_share_local_memory(hip, kernels, groups):
    values = np.random.default_rng(1).integers(-999, 999, groups * 1024).astype(np.int32)
    source, out = hip.upload(values), hip.malloc(values.nbytes)
    assert hip.launch(kernels["reverse"], (groups,), (1024,), source, out) == SUCCESS, hip.fault()
    expected = values.reshape(groups, 1024)[:, ::-1]
    np.testing.assert_array_equal(hip.download(out, (groups, 1024), np.int32), expected)


def test_sixteen_waves_reduce(hip, kernels):
    values = np.random.default_rng(2).integers(-999, 999, 4 * 1024).astype(np.float32)
    source, out = hip.upload(values), hip.malloc(16)
    assert hip.launch(kernels["sum"], (4,), (1024,), source, out) == SUCCESS, hip.fault()
    np.testing.assert_array_equal(hip.download(out, 4, np.float32), values.reshape(4, 1024).sum(1))


def test_lanes_leave_a_loop_one_by_one(hip, kernels):
    values = np.arange(1, 129, dtype=np.uint32)
    source, out = hip.upload(values), hip.malloc(values.nbytes)
    assert hip.launch(kernels["collatz"], (2,), (64,), source, out) == SUCCESS, hip.fault()

    def steps(value: int) -> int:
        return 0 if value == 1 else 1 + steps(3 * value + 1 if value % 2 else value // 2)

    np.testing.assert_array_equal(hip.download(out, 128, np.uint32), [steps(int(value)) for value in values])


def test_private_memory_belongs_to_each_work_item(hip, kernels):
    values = np.arange(1, 129, dtype=np.int32)
    source, out = hip.upload(values), hip.malloc(values.nbytes)
    assert hip.launch(kernels["spill"], (1,), (128,), source, out, _i32(55)) == SUCCESS, hip.fault()
    expected = [value * sum((i * 7 + x) % 40 for i in range(55)) for x, value in enumerate(values)]
    np.testing.assert_array_equal(hip.download(out, 128, np.int32), expected)


def test_atomics_of_all_workgroups_count(hip, kernels):
    values = np.random.default_rng(3).integers(0, 2**31, 8 * 256).astype(np.uint32)
    source, out = hip.upload(values), hip.upload(np.zeros(16, np.uint32))
    assert hip.launch(kernels["histogram"], (8,), (256,), source, out) == SUCCESS, hip.fault()
    np.testing.assert_array_equal(hip.download(out, 16, np.uint32), np.bincount(values & 15, minlength=16))


def test_workgroups_that_spin_let_later_ones_run(hip, kernels):
    out = hip.upload(np.zeros(50, np.uint32))
    assert hip.launch(kernels["relay"], (50,), (64,), out) == SUCCESS, hip.fault()
    np.testing.assert_array_equal(hip.download(out, 50, np.uint32), 50 - np.arange(50))


def test_counters_are_those_of_the_kernel(hip, kernels):
    source, out = hip.upload(np.zeros(192, np.float32)), hip.malloc(192 * 4)
    driver.take_dispatch_counters()
    assert hip.launch(kernels["scale"], (3,), (64,), source, out, ctypes.c_float(1), _i32(150)) == SUCCESS
    (counters,) = driver.take_dispatch_counters()
    assert counters.kernel == "scale" and counters.waves == 3
    assert counters.bytes_stored == 150 * 4
    assert counters.bytes_loaded >= 150 * 4 + 3 * 8  # and the arguments, which every wave loads
    assert counters.wave_instructions["vmem"] == 6 and counters.matrix_operations == 0
    if counters.cache_lines is not None:
        assert 10 <= counters.cache_lines <= 12  # 600 bytes read, 600 written, and the arguments


# ---- What strict devices refuse ----


@pytest.fixture(scope="module")
def strict_kernels(arch, code):
    hip = Hip(arch, strict=True)
    yield hip, {name: hip.function(code, name) for name in _names()}
    hip.unload_all()


@pytest.mark.parametrize(("short", "what"), [("source", "load"), ("target", "store")])
def test_an_access_past_the_end_is_a_fault(strict_kernels, short, what):
    hip, kernels = strict_kernels
    sizes = {"source": 4 * 150, "target": 4 * 150} | {short: 4 * 150 - 1}
    source, out = hip.malloc(sizes["source"]), hip.malloc(sizes["target"])
    assert hip.launch(kernels["scale"], (3,), (64,), source, out, ctypes.c_float(1), _i32(150)) == LAUNCH_FAILURE
    fault = hip.fault()
    assert f"{what} of 4 bytes" in fault and "workgroup (2, 0, 0), lane 21" in fault
    assert "at byte 596 of live buffer" in fault and "599 bytes" in fault and f"`global_{what}" in fault
    # The device works on.
    source, out = hip.upload(np.ones(150, np.float32)), hip.malloc(600)
    assert hip.launch(kernels["scale"], (3,), (64,), source, out, ctypes.c_float(2), _i32(150)) == SUCCESS
    assert (hip.download(out, 150, np.float32) == 2).all()


def test_a_freed_buffer_is_a_fault(strict_kernels):
    hip, kernels = strict_kernels
    source, out = hip.upload(np.zeros(64, np.float32)), hip.malloc(256)
    hip.free(source)
    assert hip.launch(kernels["scale"], (1,), (64,), source, out, ctypes.c_float(1), _i32(64)) == LAUNCH_FAILURE
    assert "at byte 0 of freed buffer" in hip.fault()


def test_the_other_architecture_is_refused(arch, code):
    other = {"gfx942": "gfx950", "gfx950": "gfx942"}[arch]
    hip = Hip(other)
    assert hip.load(code)[0] == hip_calls.INVALID_IMAGE
    assert f"built for {arch}, but the device is {other}" in hip.fault()


FAULTY = """
#define KERNEL extern "C" __attribute__((global)) void
#define X __builtin_amdgcn_workitem_id_x()
#define KEEP_ORDER asm volatile("" ::: "memory")
#define BARRIER \\
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup"), __builtin_amdgcn_s_barrier(), \\
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup")
__attribute__((shared)) static int tile[256];

KERNEL reads_unwritten(const int *in, int *out) {
  if (X < 200) tile[X] = in[X];
  BARRIER;
  out[X] = tile[255 - X];
}
KERNEL overwrites_early(const int *in, int *out) {
  tile[X] = in[X];
  BARRIER;
  int first = tile[255 - X];
  KEEP_ORDER;
  tile[X] = first + 1;
  BARRIER;
  out[X] = tile[255 - X];
}
KERNEL increments(const int *in, int *out) { out[X] = in[X] + 1; }
KERNEL gives_up(const int *in, int *out) {
  if (in[X] == 77) __builtin_trap();
  out[X] = in[X];
}
KERNEL halts(const int *in, int *out) {
  if (in[X] == 77)
    for (;;) asm volatile("s_sethalt 5");
  out[X] = in[X];
}
KERNEL only_gives_up(const int *in, int *out) { __builtin_trap(); }
"""


def _without_wait(assembly: str) -> str:
    start = assembly.index("\nincrements:")
    return assembly[:start] + assembly[start:].replace("s_waitcnt vmcnt(0)", "s_nop 0", 1)


@pytest.mark.parametrize(
    ("name", "edit", "messages"),
    [
        ("reads_unwritten", None, ["`ds_read_b32", "never written"]),
        ("overwrites_early", None, ["`ds_read_b32", "no completed write and barrier between"]),
        ("increments", _without_wait, ["`v_add_u32", "before the s_waitcnt"]),
        ("gives_up", None, ["wave 1, lane 13, `s_trap", "the kernel gave up"]),
        ("halts", None, ["wave 1, lane 13, `s_sethalt", "the wave stops for ever"]),
        ("only_gives_up", None, ["lane 0, `s_trap", "the kernel gave up"]),
    ],
)
def test_a_race_or_an_abort_is_a_fault(tmp_path, arch, name, edit, messages):
    hip = Hip(arch, strict=True)
    function = hip.function(compile_hip(tmp_path, FAULTY, arch, edit), name)
    source, out = hip.upload(np.arange(256, dtype=np.int32)), hip.malloc(1024)
    assert hip.launch(function, (1,), (256,), source, out) == LAUNCH_FAILURE
    fault = hip.fault()
    hip.unload_all()
    assert f"kernel {name}, workgroup (0, 0, 0), wave" in fault
    assert all(message in fault for message in messages), fault
