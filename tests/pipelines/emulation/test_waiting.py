"""Workgroups that wait for each other through memory: they get on, and when they cannot, a message says where."""

import ctypes

import numpy as np
import pytest

from tests.pipelines.emulation.hip_calls import LAUNCH_FAILURE, SUCCESS, Hip, compile_hip

SOURCE = """
#define KERNEL extern "C" __attribute__((global)) void
#define X __builtin_amdgcn_workitem_id_x()
#define GROUP __builtin_amdgcn_workgroup_id_x()
#define LOAD(place) __hip_atomic_load(place, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT)
#define ADD(place, value) __hip_atomic_fetch_add(place, value, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT)

__attribute__((device)) static void grid_barrier(unsigned *count, unsigned wanted) {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "agent");
  __builtin_amdgcn_s_barrier();
  if (!X) {
    ADD(count, 1u);
    while (LOAD(count) < wanted) __builtin_amdgcn_s_sleep(1);
  }
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "agent");
}

// Each round sums what all workgroups wrote in the round before, so that an early or late one is seen.
KERNEL rounds(unsigned *count, unsigned *values, unsigned *sums, unsigned groups, unsigned turns) {
  for (unsigned turn = 0; turn < turns; ++turn) {
    if (!X) values[GROUP] = GROUP + turn;
    grid_barrier(count, groups * (2 * turn + 1));
    unsigned sum = 0;
    for (unsigned i = X; i < groups; i += 256) sum += values[i];
    ADD(&sums[turn * groups + GROUP], sum);
    grid_barrier(count, groups * (2 * turn + 2));
  }
}
KERNEL waits_without_sleep(unsigned *flags) {
  if (GROUP + 1 < 6)
    while (!LOAD(&flags[GROUP + 1])) ;
  __hip_atomic_store(&flags[GROUP], 6 - GROUP, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT);
}
KERNEL waits_for_ever(unsigned *flags) {
  if (GROUP == 2)
    while (!LOAD(&flags[0])) __builtin_amdgcn_s_sleep(1);
}
KERNEL changes_nothing(unsigned *flags) {
  while (!ADD(&flags[0], 0u)) __builtin_amdgcn_s_sleep(1);
}
"""
GROUPS, TURNS = 304, 10


@pytest.fixture(scope="module")
def code(tmp_path_factory) -> bytes:
    return compile_hip(tmp_path_factory.mktemp("code"), SOURCE, "gfx942")


@pytest.fixture(params=[True, False], ids=["strict", "fast"])
def hip(request) -> Hip:
    hip = Hip("gfx942", request.param)
    yield hip
    hip.unload_all()


def _zeros(hip: Hip, count: int) -> int:
    return hip.upload(np.zeros(count, np.uint32))


def test_grid_barriers_of_as_many_workgroups_as_compute_units(hip, code):
    """Two barriers a turn: what one workgroup wrote before the first, every other one has read by the second."""
    count, values, sums = _zeros(hip, 1), _zeros(hip, GROUPS), _zeros(hip, TURNS * GROUPS)
    sizes = (ctypes.c_uint32(GROUPS), ctypes.c_uint32(TURNS))
    rounds = hip.function(code, "rounds")
    assert hip.launch(rounds, (GROUPS,), (256,), count, values, sums, *sizes) == SUCCESS, hip.fault()
    assert hip.download(count, 1, np.uint32)[0] == 2 * TURNS * GROUPS
    expected = GROUPS * (GROUPS - 1) // 2 + GROUPS * np.arange(TURNS)[:, None]
    np.testing.assert_array_equal(hip.download(sums, (TURNS, GROUPS), np.uint32), np.tile(expected, GROUPS))


def test_a_wave_that_spins_without_sleeping_lets_others_run(hip, code):
    flags = _zeros(hip, 6)
    assert hip.launch(hip.function(code, "waits_without_sleep"), (6,), (64,), flags) == SUCCESS, hip.fault()
    np.testing.assert_array_equal(hip.download(flags, 6, np.uint32), 6 - np.arange(6))


@pytest.mark.parametrize(("name", "group"), [("waits_for_ever", "(2, 0, 0)"), ("changes_nothing", "(")])
def test_waiting_for_ever_is_a_fault(hip, code, name, group):
    assert hip.launch(hip.function(code, name), (3,), (64,), _zeros(hip, 1)) == LAUNCH_FAILURE
    fault = hip.fault()
    assert f"kernel {name}, workgroup {group}" in fault and "waits for ever" in fault, fault


def test_a_grid_barrier_of_more_workgroups_than_the_chip_holds_is_a_fault(hip, code):
    """1024 work-items, whose 16 waves share a compute unit with one more such workgroup: 608 of 700 run."""
    count, values, sums = _zeros(hip, 1), _zeros(hip, 700), _zeros(hip, 700)
    rounds = hip.function(code, "rounds")
    sizes = (ctypes.c_uint32(700), ctypes.c_uint32(1))
    assert hip.launch(rounds, (700,), (1024,), count, values, sums, *sizes) == LAUNCH_FAILURE
    assert "92 more cannot start before one ends" in hip.fault()
