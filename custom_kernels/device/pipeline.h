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

// For each of STEPS steps, and each of its PARTS parts in order: multiply(load_weights(step), load_rows(step, part),
// step, part). The weights of WEIGHTS_AHEAD steps and the rows of ROWS_AHEAD parts are loaded ahead, into registers:
// all first loads are issued before anything is multiplied, weights first.
template <int STEPS, int PARTS, int WEIGHTS_AHEAD, int ROWS_AHEAD, typename LoadWeights, typename LoadRows,
          typename Multiply>
DEVICE void multiply_ahead(LoadWeights load_weights, LoadRows load_rows, Multiply multiply) {
  // A turn of the loop uses every place of both rings, so that places are known when compiling.
  static_assert(WEIGHTS_AHEAD <= STEPS && WEIGHTS_AHEAD * PARTS % ROWS_AHEAD == 0);
  constexpr int TURNS = STEPS / WEIGHTS_AHEAD - 1;
  constexpr int UNROLLED_TURNS = PARTS > 2 || TURNS < 1 ? 1 : TURNS;
  decltype(load_weights(0)) weights[WEIGHTS_AHEAD];
  decltype(load_rows(0, 0)) rows[ROWS_AHEAD];
#pragma unroll
  for (int i = 0; i < WEIGHTS_AHEAD; ++i) weights[i] = load_weights(i);
#pragma unroll
  for (int i = 0; i < ROWS_AHEAD; ++i) rows[i] = load_rows(i / PARTS, i % PARTS);
  schedule_boundary();

  // Step `first` + i; `left` bounds the i that are loaded ahead.
  auto run_step = [&](int first, int i, int left) INLINE {
    auto &weights_place = weights[i % WEIGHTS_AHEAD];
    auto of_step = weights_place;
#pragma unroll
    for (int part = 0; part < PARTS; ++part) {
      auto &rows_place = rows[(i * PARTS + part) % ROWS_AHEAD];
      multiply(of_step, rows_place, first + i, part);
      int later = i + (part + ROWS_AHEAD) / PARTS;
      bool more_weights = part == 0 && i + WEIGHTS_AHEAD < left, more_rows = later < left;
      if (more_weights) weights_place = load_weights(first + i + WEIGHTS_AHEAD);
      if (more_rows) rows_place = load_rows(first + later, (part + ROWS_AHEAD) % PARTS);
      if (more_weights || more_rows) schedule_boundary();
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
