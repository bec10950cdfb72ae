// First matrix of the routed experts and its gate: silu(gate) * up of every (row, expert) pair.
//
// The work is cut into units: 8 gate rows and the 8 up rows that belong to them, which fill one fragment, for the
// pairs of one chunk. Units are ordered by expert, band and chunk, and the workgroups take them in turn: the load is
// even whatever the routing, an expert's weight is read from memory once, and what all workgroups read at a time lies
// close together, which memory is faster at than at as many places as there are workgroups. The waves share the
// columns; the loads of the next groups, also of the next unit, are always under way.
//
// ROWS, EXPERTS_PER_ROW, EXPERTS, BANDS, COLUMNS, ROW_BLOCK and WORKGROUPS are compile-time constants.
#include "expert_pairs.h"
#include "pipeline.h"
#include "read_once.h"
#include "silu.h"

constexpr int WAVES = GATHER_THREADS / WAVE_SIZE;
constexpr int FRAGMENTS = GROUP / FRAGMENT_COLUMNS;
constexpr int HALF = TILE / 2;
constexpr int OUTPUTS = BANDS * HALF;
constexpr int SLICES = OUTPUTS / HALF;
constexpr int SCALE_ROWS = divide_up(BANDS * TILE, GROUP);
constexpr int GROUPS = COLUMNS / GROUP;
constexpr int PAIRS = (ROWS < ROW_BLOCK ? ROWS : ROW_BLOCK) * EXPERTS_PER_ROW;
// The groups of a wave go through SLOTS sets of registers in ROUNDS: 8 (NVIDIA, where more make memory slower) or 14
// loads of weights are under way.
constexpr int MOST_SLOTS = FRAGMENT_PARTS == 1 ? 7 : 2;
constexpr int ROUNDS = divide_up(divide_up(GROUPS, WAVES), MOST_SLOTS);
constexpr int SLOTS = divide_up(divide_up(GROUPS, WAVES), ROUNDS);
constexpr int ROUND_GROUPS = SLOTS * WAVES;
// A lane's sums belong to gate and up rows (NVIDIA) or to one of the two (AMD).
constexpr int LANE_HALVES = FRAGMENT_PARTS;

struct Shared {
  ExpertPairs<EXPERTS, PAIRS> gathered;
  float of_wave[2][WAVES][PART_ROWS][TILE + 4];  // padded: no two lanes write to one bank
};

struct Operands {
  const uint8 *values;
  const float *scales;
  const uint8 *weight;
  const float *weight_scales;
  int first_row;
};

// One chunk and one slice of HALF gate and HALF up rows.
struct Unit {
  Chunk chunk;
  int slice;
};

DEVICE Unit unit_at(const ExpertPairs<EXPERTS, PAIRS> &gathered, int index) {
  Chunk any = gathered.chunk[index / SLICES];
  int first_chunk = index / SLICES - any.index, of_expert = index - first_chunk * SLICES;
  int slice = of_expert / any.siblings;
  return {gathered.chunk[first_chunk + of_expert - slice * any.siblings], slice};
}

// Where this lane's operands of its wave's first group of a round lie.
struct Sources {
  const uint8 *weight;
  int values;
  int scale;
  int weight_scales[LANE_HALVES];
};

DEVICE Sources sources_of(const Operands &from, const ExpertPairs<EXPERTS, PAIRS> &gathered, const Unit &unit) {
  int i = fragment_row(0), expert = unit.chunk.expert;
  int row = from.first_row + pair_of(gathered, unit.chunk, i) / EXPERTS_PER_ROW;
  int64 weight_row = int64(expert) * (BANDS * TILE) + i / HALF * OUTPUTS + unit.slice * HALF + i % HALF;
  int group = uniform_wave_id(), column = group * GROUP + fragment_tile() * TILE;
  Sources sources = {from.weight + tiled_16x16_offset(weight_row, column, COLUMNS),
                     int(row_major_offset(row, column, COLUMNS)), group * ROWS + row};
#pragma unroll
  for (int half = 0; half < LANE_HALVES; ++half) {
    int output = accumulator_row(half * ACCUMULATOR_ROWS / LANE_HALVES) / HALF * OUTPUTS + unit.slice * HALF;
    sources.weight_scales[half] = (expert * SCALE_ROWS + output / GROUP) * GROUPS + group;
  }
  return sources;
}

DEVICE void go_to_next_round(Sources &sources) {
  sources.weight += ROUND_GROUPS * GROUP * TILE;
  sources.values += ROUND_GROUPS * GROUP;
  sources.scale += ROUND_GROUPS * ROWS;
#pragma unroll
  for (int half = 0; half < LANE_HALVES; ++half) sources.weight_scales[half] += ROUND_GROUPS;
}

// Sources of loads that nobody waits for, after the last unit: every lane reads the same bytes. Not loading would
// leave the number of loads under way unknown, and AMD's compiler would wait for all of them.
DEVICE Sources idle_sources(const Operands &from) { return {from.weight}; }

// A lane's operands of one group.
struct Slot {
  Fragment weight[FRAGMENTS];
  uint32x4 values[FRAGMENTS];
  float scale;  // of row fragment_row(0) of `values`
  float weight_scales[LANE_HALVES];
};

// The group of place `index` in the round.
DEVICE void load(const Operands &operands, const Sources &from, int index, Slot &slot) {
#pragma unroll
  for (int i = 0; i < FRAGMENTS; ++i) {
    int column = index * WAVES * GROUP + i * FRAGMENT_COLUMNS;
#pragma unroll
    for (int part = 0; part < FRAGMENT_PARTS; ++part) {
      const uint8 *tiles = from.weight + int64(part) * OUTPUTS * COLUMNS + column * TILE;
      slot.weight[i].part[part] = load_once(tiles);
    }
    slot.values[i] = *(const uint32x4 *)(operands.values + from.values + column);
  }
  slot.scale = operands.scales[from.scale + index * WAVES * ROWS];
#pragma unroll
  for (int half = 0; half < LANE_HALVES; ++half)
    slot.weight_scales[half] = operands.weight_scales[from.weight_scales[half] + index * WAVES];
}

DEVICE void multiply_slot(const Slot &slot, float (&totals)[PART_COLUMNS][ACCUMULATOR_ROWS]) {
  float sums[PART_COLUMNS][ACCUMULATOR_ROWS] = {};
#pragma unroll
  for (int i = 0; i < FRAGMENTS; ++i) multiply_part(slot.weight[i], slot.values[i], sums);
#pragma unroll
  for (int c = 0; c < PART_COLUMNS; ++c) {
    float scale = of_column(slot.scale, c);
#pragma unroll
    for (int r = 0; r < ACCUMULATOR_ROWS; ++r)
      totals[c][r] += slot.weight_scales[r * LANE_HALVES / ACCUMULATOR_ROWS] * scale * sums[c][r];
  }
}

// Takes the waves' totals and adds them in wave order; every thread of the workgroup must call.
DEVICE void store_unit(float (&of_wave)[WAVES][PART_ROWS][TILE + 4], float (&totals)[PART_COLUMNS][ACCUMULATOR_ROWS],
                       const ExpertPairs<EXPERTS, PAIRS> &gathered, const Unit &unit, bf16 *result) {
#pragma unroll
  for (int c = 0; c < PART_COLUMNS; ++c)
#pragma unroll
    for (int r = 0; r < ACCUMULATOR_ROWS; ++r) {
      of_wave[wave_id()][accumulator_column(c)][accumulator_row(r)] = totals[c][r];
      totals[c][r] = 0;
    }
  barrier();
  int member = thread_id() / HALF, output = thread_id() % HALF;
  if (member >= unit.chunk.count) return;
  float gate = 0, up = 0;
#pragma unroll
  for (int wave = 0; wave < WAVES; ++wave) {
    gate += of_wave[wave][member][output];
    up += of_wave[wave][member][HALF + output];
  }
  result[row_major_offset(pair_of(gathered, unit.chunk, member), unit.slice * HALF + output, OUTPUTS)] =
      silu_mul(round_to_bf16(gate), round_to_bf16(up));
}

DEVICE void moe_gate_up(Workgroup workgroup, Shared &shared, const uint8 *values, const float *scales,
                        const int *expert_ids, const uint8 *weight, const float *weight_scales, bf16 *result) {
  int first_row = workgroup.y * ROW_BLOCK;
  int rows = ROWS - first_row < ROW_BLOCK ? ROWS - first_row : ROW_BLOCK;
  int64 first_pair = int64(first_row) * EXPERTS_PER_ROW;
  auto &gathered = shared.gathered;
  gather_pairs<EXPERTS_PER_ROW>(expert_ids + first_pair, rows * EXPERTS_PER_ROW, gathered);
  int units = gathered.chunks * SLICES;
  if (workgroup.x >= units) return;
  Operands operands = {values, scales, weight, weight_scales, first_row};
  auto exists = [](int round, int slot) {
    return GROUPS == ROUNDS * ROUND_GROUPS || (round * SLOTS + slot) * WAVES + uniform_wave_id() < GROUPS;
  };
  Sources sources;
  Slot slots[SLOTS];
  float totals[PART_COLUMNS][ACCUMULATOR_ROWS] = {};
  // The round before the first unit only loads.
  for (int index = workgroup.x - WORKGROUPS, round = ROUNDS - 1; index < units;) {
    bool unit_ends = round == ROUNDS - 1;
    int next_round = unit_ends ? 0 : round + 1;
    if (!unit_ends) go_to_next_round(sources);
    else if (index + WORKGROUPS < units) sources = sources_of(operands, gathered, unit_at(gathered, index + WORKGROUPS));
    else sources = idle_sources(operands);
#pragma unroll
    for (int slot = 0; slot < SLOTS; ++slot) {
      if (index >= 0 && exists(round, slot)) multiply_slot(slots[slot], totals);
      if (exists(next_round, slot)) load(operands, sources, slot, slots[slot]);
      schedule_boundary();
    }
    round = next_round;
    if (!unit_ends) continue;
    if (index >= 0)
      store_unit(shared.of_wave[index / WORKGROUPS % 2], totals, gathered, unit_at(gathered, index),
                 result + first_pair * OUTPUTS);
    index += WORKGROUPS;
  }
}
