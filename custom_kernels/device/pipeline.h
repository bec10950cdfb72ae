// Keeps loads of weights and of activation rows under way while earlier ones are multiplied.
#pragma once

#include "compiler.h"

// Of a lambda that must not become a function: its captures would live in memory.
#define INLINE __attribute__((always_inline))

// What stands above stays above. Otherwise both compilers move a load down to where its result is used, to save
// registers, and few loads are under way at a time. (ptxas schedules nothing across a `pmevent`, which does nothing.)
DEVICE void schedule_boundary() {
#if defined(__AMDGCN__)
  __builtin_amdgcn_sched_barrier(0);
#elif defined(__NVPTX__)
  asm volatile("pmevent 1;" ::: "memory");
#endif
}

// The last SLOTS loads of 16 bytes of a lane, which arrive in the order in which they are issued.
//
// AMD waits for the oldest of several loads alone, so they are registers there. NVIDIA knows for few groups of loads
// whether they have arrived, and waits for the newest of a group; only copies to workgroup memory are waited for in
// order. `memory` is the lane's own, one element per slot, a wave apart.
#if defined(__AMDGCN__)
template <int SLOTS, int WAVES> struct LaneRingMemory {};

template <int SLOTS> struct LaneRing {
  static constexpr bool IN_REGISTERS = true;
  uint32x4 slots[SLOTS];

  template <int WAVES> DEVICE LaneRing in(LaneRingMemory<SLOTS, WAVES> &memory) { return {}; }
  MEMBER void load(int slot, const void *source) {
    slots[slot] = *(const uint32x4 *)source;
  }
  MEMBER void load_nothing() {}
  // The content of `slot`, which the oldest of the last SLOTS loads filled.
  MEMBER uint32x4 take(int slot) { return slots[slot]; }
};
#elif defined(__NVPTX__)
template <int SLOTS, int WAVES> struct LaneRingMemory {
  uint32x4 slots[WAVES][SLOTS][WAVE_SIZE];
};

template <int SLOTS> struct LaneRing {
  static constexpr bool IN_REGISTERS = false;
  uint32x4 *memory;

  template <int WAVES> DEVICE LaneRing in(LaneRingMemory<SLOTS, WAVES> &memory) {
    return {&memory.slots[wave_id()][0][lane_id()]};
  }
  MEMBER void load(int slot, const void *source) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n\tcp.async.commit_group;" ::"r"(
                     shared_address(memory + slot * WAVE_SIZE)),
                 "l"(source)
                 : "memory");
  }
  // Counts as a load: `take` counts what was issued after the load it waits for.
  MEMBER void load_nothing() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  MEMBER uint32x4 take(int slot) {
    asm volatile("cp.async.wait_group %0;" ::"n"(SLOTS - 1) : "memory");
    return memory[slot * WAVE_SIZE];
  }
};
#endif

// For each of STEPS steps, and each of its PARTS parts in order: multiply(load_weights(step), 16 bytes from
// row_address(step, part), step, part). The weights of WEIGHTS_AHEAD steps and the rows of ROWS_AHEAD parts are loaded
// ahead: all first loads are issued before anything is multiplied.
template <int STEPS, int PARTS, int WEIGHTS_AHEAD, int ROWS_AHEAD, int WAVES, typename LoadWeights,
          typename RowAddress, typename Multiply>
DEVICE void multiply_ahead(LaneRingMemory<ROWS_AHEAD, WAVES> &memory, LoadWeights load_weights, RowAddress row_address,
                           Multiply multiply) {
  // With few parts everything is unrolled. Otherwise a turn of the loop uses every place of both rings, so that places
  // are known when compiling.
  constexpr bool ROLLED = PARTS > 2;
  static_assert(WEIGHTS_AHEAD <= STEPS && (!ROLLED || WEIGHTS_AHEAD * PARTS % ROWS_AHEAD == 0));
  constexpr int TURNS = STEPS / WEIGHTS_AHEAD - 1;
  constexpr int UNROLLED_TURNS = ROLLED || TURNS < 1 ? 1 : TURNS;
  decltype(load_weights(0)) weights[WEIGHTS_AHEAD];
  auto rows = LaneRing<ROWS_AHEAD>::in(memory);
#pragma unroll
  for (int i = 0; i < WEIGHTS_AHEAD; ++i) weights[i] = load_weights(i);
#pragma unroll
  for (int i = 0; i < ROWS_AHEAD; ++i) rows.load(i, row_address(i / PARTS, i % PARTS));
  schedule_boundary();
  uint32x4 of_part = rows.take(0);

  // Step `first` + i; `left` bounds the i that are loaded ahead.
  auto run_step = [&](int first, int i, int left) INLINE {
    auto &weights_place = weights[i % WEIGHTS_AHEAD];
    auto of_step = weights_place;
#pragma unroll
    for (int part = 0; part < PARTS; ++part) {
      int place = (ROLLED ? i : first + i) * PARTS + part;
      int later = i + (part + ROWS_AHEAD) / PARTS;
      auto of_this_part = of_part;
      bool more_weights = part == 0 && i + WEIGHTS_AHEAD < left;
      // Rolled, a turn's rows ahead are those of the next turn at most.
      bool more_rows = ROLLED ? later < left : first + later < STEPS;
      if (more_rows)
        rows.load(place % ROWS_AHEAD, row_address(first + later, (part + ROWS_AHEAD) % PARTS));
      else
        rows.load_nothing();
      if (i + 1 < left || part + 1 < PARTS) of_part = rows.take((place + 1) % ROWS_AHEAD);
      multiply(of_step, of_this_part, first + i, part);
      if (more_weights) weights_place = load_weights(first + i + WEIGHTS_AHEAD);
      if (more_weights || (rows.IN_REGISTERS && more_rows)) schedule_boundary();
    }
  };
#pragma unroll UNROLLED_TURNS
  for (int turn = 0; turn < TURNS; ++turn)
#pragma unroll
    for (int i = 0; i < WEIGHTS_AHEAD; ++i) run_step(turn * WEIGHTS_AHEAD, i, STEPS);
#pragma unroll
  for (int i = 0; i < STEPS - TURNS * WEIGHTS_AHEAD; ++i)
    run_step(TURNS * WEIGHTS_AHEAD, i, STEPS - TURNS * WEIGHTS_AHEAD);
}
