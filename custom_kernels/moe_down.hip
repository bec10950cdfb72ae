// Second matrix of the routed experts and their weighted sum, for WORKGROUP_BANDS bands of 16 columns of all rows.
//
// The workgroup goes through all chunks of pairs, in order of their experts and WAVES at a time (a stage): a wave
// quantises the chunk's activations and multiplies them with the expert's bands, so that an expert's weight is read
// from memory once. The products of a stage meet in workgroup memory, where the threads that own a row add those of
// its experts: always in ascending order of the experts, whatever the other rows are. The weights of the next
// stages are always under way.
//
// ROWS, EXPERTS_PER_ROW, EXPERTS, BANDS, COLUMNS, ROW_BLOCK and WORKGROUP_BANDS are compile-time constants.
#include "expert_pairs.h"
#include "group_quant.h"
#include "pipeline.h"

constexpr int WAVES = GATHER_THREADS / WAVE_SIZE;
constexpr int FRAGMENTS = GROUP / FRAGMENT_COLUMNS;
constexpr int OUTPUTS = WORKGROUP_BANDS * TILE;
constexpr int GROUPS = COLUMNS / GROUP;
constexpr int SCALE_ROWS = divide_up(BANDS * TILE, GROUP);
constexpr int BLOCK = ROWS < ROW_BLOCK ? ROWS : ROW_BLOCK;
constexpr int PAIRS = BLOCK * EXPERTS_PER_ROW;
// A step is a chunk's product over STEP_GROUPS groups; the weights of DEPTH steps are under way.
constexpr int STEP_GROUPS = GROUPS % 2 ? 1 : 2;
constexpr int CHUNK_STEPS = GROUPS / STEP_GROUPS;
constexpr int STEP_LOADS = WORKGROUP_BANDS * STEP_GROUPS * FRAGMENTS * FRAGMENT_PARTS;
constexpr int DEPTH = STEP_LOADS < 16 ? 16 / STEP_LOADS : 1;
// A wave quantises one group of TURN_ROWS pairs at a time.
constexpr int TURN_ROWS = WAVE_SIZE / GROUP_LANES;
constexpr int TURNS = PART_ROWS / TURN_ROWS;
constexpr int TURNS_AHEAD = TURNS / 2;  // few chunks have more pairs than are loaded ahead
constexpr int CODE_STRIDE = GROUP + 16, PRODUCT_STRIDE = OUTPUTS + 4;  // rows start in different banks
// The threads share the rows' columns: each owns OWNED of a row, at least two, which it stores together.
constexpr int OWNED = BLOCK * OUTPUTS <= 2 * GATHER_THREADS ? 2 : OUTPUTS * ROW_BLOCK / GATHER_THREADS;
constexpr int ROW_THREADS = OUTPUTS / OWNED;

struct Shared {
  alignas(16) float products[2][WAVES * PART_ROWS][PRODUCT_STRIDE];  // of a stage's chunks
  alignas(16) uint8 codes[WAVES][PART_ROWS][CODE_STRIDE];
  float scales[WAVES][PART_ROWS];
  ExpertPairs<EXPERTS, PAIRS> gathered;
  float ordered_weight[PAIRS];  // see `order_pairs`
};

struct Operands {
  const bf16 *values;
  const uint8 *weight;
  const float *weight_scales;
  int first_band;
};

// The place of a pair's product among all products: its chunk * PART_ROWS + its place in the chunk.
DEVICE const uint16 *ordered_places(const Shared &shared) { return shared.gathered.scratch[1]; }

// Puts, by row, the places of its pairs and their weights in ascending order of the places.
DEVICE void order_pairs(Shared &shared, const float *expert_weights, int pairs) {
  auto &gathered = shared.gathered;
  auto &[places, ordered] = gathered.scratch;
  for (int place = thread_id(); place < gathered.chunks * PART_ROWS; place += GATHER_THREADS) {
    Chunk chunk = gathered.chunk[place / PART_ROWS];
    if (place % PART_ROWS < chunk.count) places[pair_of(gathered, chunk, place % PART_ROWS)] = uint16(place);
  }
  barrier();
  for (int pair = thread_id(); pair < pairs; pair += GATHER_THREADS) {
    int first = pair / EXPERTS_PER_ROW * EXPERTS_PER_ROW, place = places[pair], order = first;
    float weight = expert_weights[pair];
#pragma unroll
    for (int j = 0; j < EXPERTS_PER_ROW; ++j) order += places[first + j] < place;
    ordered[order] = uint16(place);
    shared.ordered_weight[order] = weight;
  }
  barrier();
}

// Chunk `index`, or beyond the last chunk that one again, whose product nobody reads then.
DEVICE Chunk chunk_at(const ExpertPairs<EXPERTS, PAIRS> &gathered, int index) {
  return gathered.chunk[index < gathered.chunks ? index : gathered.chunks - 1];
}

// Where this lane's operands of a chunk lie.
struct Sources {
  Chunk chunk;
  const uint8 *weight;  // of the first band
};

// Beyond the last chunk, the weights are of loads that nobody waits for: every lane reads the same. Not loading would
// leave the number of loads under way unknown, and AMD's compiler would wait for all of them.
DEVICE Sources sources_of(const Operands &from, const ExpertPairs<EXPERTS, PAIRS> &gathered, int index) {
  Chunk chunk = chunk_at(gathered, index);
  int64 row = int64(chunk.expert) * (BANDS * TILE) + from.first_band * TILE + fragment_row(0);
  int64 offset = tiled_16x16_offset(row, fragment_tile() * TILE, COLUMNS);
  return {chunk, from.weight + (index < gathered.chunks ? offset : 0)};
}

// A lane's operands of one step.
struct Slot {
  uint32x4 values[STEP_GROUPS][TURNS_AHEAD];
  Fragment weight[WORKGROUP_BANDS][STEP_GROUPS][FRAGMENTS];
  float weight_scales[WORKGROUP_BANDS][STEP_GROUPS];
};

// The last workgroup may have fewer bands: it reads the last one repeatedly.
DEVICE int existing_band(const Operands &from, int band) {
  if (BANDS % WORKGROUP_BANDS == 0 || from.first_band + band < BANDS) return band;
  return BANDS - 1 - from.first_band;
}

// Eight columns of `group` of pair turn * TURN_ROWS + lane / GROUP_LANES of `chunk`, or of its last pair.
DEVICE uint32x4 load_values(const Operands &from, const ExpertPairs<EXPERTS, PAIRS> &gathered, const Chunk &chunk,
                            int group, int turn) {
  int pair = pair_of(gathered, chunk, turn * TURN_ROWS + lane_id() / GROUP_LANES);
  int column = group * GROUP + lane_id() % GROUP_LANES * COLUMNS_PER_LANE;
  return *(const uint32x4 *)(from.values + row_major_offset(pair, column, COLUMNS));
}

DEVICE void load(const Operands &operands, const ExpertPairs<EXPERTS, PAIRS> &gathered, const Sources &from,
                 int first_group, Slot &slot) {
#pragma unroll
  for (int turn = 0; turn < TURNS_AHEAD; ++turn)
#pragma unroll
    for (int group = 0; group < STEP_GROUPS; ++group)
      slot.values[group][turn] = load_values(operands, gathered, from.chunk, first_group + group, turn);
#pragma unroll
  for (int i = 0; i < WORKGROUP_BANDS; ++i) {
    int band = existing_band(operands, i), scale_row = (operands.first_band + band) * TILE / GROUP;
    const uint8 *weight = from.weight + (band * TILE * COLUMNS + first_group * GROUP * TILE);
    const float *weight_scales = operands.weight_scales + (from.chunk.expert * SCALE_ROWS + scale_row) * GROUPS;
#pragma unroll
    for (int group = 0; group < STEP_GROUPS; ++group) {
#pragma unroll
      for (int fragment = 0; fragment < FRAGMENTS; ++fragment)
#pragma unroll
        for (int part = 0; part < FRAGMENT_PARTS; ++part) {
          int offset = (group * GROUP + fragment * FRAGMENT_COLUMNS + part * PART_ROWS) * TILE;
          slot.weight[i][group][fragment].part[part] = __builtin_nontemporal_load((const uint32x4 *)(weight + offset));
        }
      slot.weight_scales[i][group] = weight_scales[first_group + group];
    }
  }
}

// A group of the chunk's activations as the matrix unit takes it, and the scale of this lane's row.
struct Quantized {
  uint32x4 codes[FRAGMENTS];
  float scale;
};

DEVICE void quantize_turn(uint32x4 values, int turn, uint8 (&codes)[PART_ROWS][CODE_STRIDE],
                          float (&scales)[PART_ROWS]) {
  int row = turn * TURN_ROWS + lane_id() / GROUP_LANES;
  float columns[COLUMNS_PER_LANE];
  load_bf16x8((const bf16 *)&values, columns);
  quantize_group(columns, &codes[row][lane_id() % GROUP_LANES * COLUMNS_PER_LANE], &scales[row], true);
}

// By way of the wave's own workgroup memory: lanes that quantise hold other columns than lanes that multiply.
// `ahead` are the first turns' values; load(turn) gives a later turn's.
template <typename Load>
DEVICE Quantized quantize(const uint32x4 (&ahead)[TURNS_AHEAD], Load load, int count,
                          uint8 (&codes)[PART_ROWS][CODE_STRIDE], float (&scales)[PART_ROWS]) {
  wave_barrier();  // the last group's may still be read
#pragma unroll
  for (int turn = 0; turn < TURNS_AHEAD; ++turn)
    if (turn * TURN_ROWS < count) quantize_turn(ahead[turn], turn, codes, scales);
#pragma unroll 1
  for (int turn = TURNS_AHEAD; turn * TURN_ROWS < count; ++turn) quantize_turn(load(turn), turn, codes, scales);
  wave_barrier();
  int row = fragment_row(0) < count ? fragment_row(0) : count - 1;
  Quantized result;
#pragma unroll
  for (int i = 0; i < FRAGMENTS; ++i)
    result.codes[i] = *(const uint32x4 *)&codes[row][i * FRAGMENT_COLUMNS + fragment_tile() * TILE];
  result.scale = scales[row];
  return result;
}

using Totals = float[WORKGROUP_BANDS][PART_COLUMNS][ACCUMULATOR_ROWS];

DEVICE void multiply_step(const Slot &slot, int group, const Quantized &x, Totals &totals) {
#pragma unroll
  for (int band = 0; band < WORKGROUP_BANDS; ++band) {
    float sums[PART_COLUMNS][ACCUMULATOR_ROWS] = {};
#pragma unroll
    for (int i = 0; i < FRAGMENTS; ++i) multiply_part(slot.weight[band][group][i], x.codes[i], sums);
#pragma unroll
    for (int c = 0; c < PART_COLUMNS; ++c) {
      float scale = slot.weight_scales[band][group] * of_column(x.scale, c);
#pragma unroll
      for (int r = 0; r < ACCUMULATOR_ROWS; ++r) totals[band][c][r] += scale * sums[c][r];
    }
  }
}

// Moves `totals` to `products`.
DEVICE void take_totals(Totals &totals, float (*products)[PRODUCT_STRIDE]) {
#pragma unroll
  for (int band = 0; band < WORKGROUP_BANDS; ++band)
#pragma unroll
    for (int c = 0; c < PART_COLUMNS; ++c)
#pragma unroll
      for (int r = 0; r < ACCUMULATOR_ROWS; ++r) {
        products[accumulator_column(c)][band * TILE + accumulator_row(r)] = totals[band][c][r];
        totals[band][c][r] = 0;
      }
}

// What a thread owns: some columns of a row.
struct RowSum {
  int next;  // place of the next product to add
  int left;  // how many there are still
  float columns[OWNED];
};

// No place is as high.
constexpr int NOTHING_LEFT = 0x7FFFFFFF;

DEVICE void find_next(const Shared &shared, RowSum &sum) {
  int row_end = (thread_id() / ROW_THREADS + 1) * EXPERTS_PER_ROW;
  sum.next = sum.left > 0 ? ordered_places(shared)[row_end - sum.left] : NOTHING_LEFT;
}

DEVICE void add_products(const Shared &shared, int stage, RowSum &sum) {
  int first = stage * (WAVES * PART_ROWS), row_end = (thread_id() / ROW_THREADS + 1) * EXPERTS_PER_ROW;
  while (sum.next < first + WAVES * PART_ROWS) {
    const float *products = &shared.products[stage % 2][sum.next - first][thread_id() % ROW_THREADS * OWNED];
    float weight = shared.ordered_weight[row_end - sum.left];
#pragma unroll
    for (int i = 0; i < OWNED; ++i) sum.columns[i] += weight * products[i];
    --sum.left;
    find_next(shared, sum);
  }
}

DEVICE void store_row(const RowSum &sum, int first_column, bf16 *row) {
#pragma unroll
  for (int i = 0; i < OWNED; i += 2)
    if (BANDS % WORKGROUP_BANDS == 0 || first_column + i < BANDS * TILE)
      *(uint32 *)(row + first_column + i) = to_bf16(sum.columns[i]) | uint32(to_bf16(sum.columns[i + 1])) << 16;
}

// Adds the products of all chunks to `sum`.
DEVICE void sum_experts(Shared &shared, const Operands &operands, const float *expert_weights, int rows, RowSum &sum) {
  auto &gathered = shared.gathered;
  int wave = uniform_wave_id();
  // Whole turns of the slots, with no chunk in the last steps: leaving in between would hide the number of loads that
  // are under way from the compiler. The turn before the first only loads.
  int steps = divide_up(gathered.chunks, WAVES) * CHUNK_STEPS;
  Slot slots[DEPTH];
  Totals totals = {};
  for (int first = -DEPTH; first < steps; first += DEPTH) {
#pragma unroll
    for (int i = 0; i < DEPTH; ++i) {
      int step = first + i, index = step / CHUNK_STEPS * WAVES + wave, group = step % CHUNK_STEPS * STEP_GROUPS;
      if (step >= 0) {
        Chunk chunk = chunk_at(gathered, index);
#pragma unroll
        for (int j = 0; j < STEP_GROUPS; ++j) {
          auto load_turn = [&](int turn) INLINE { return load_values(operands, gathered, chunk, group + j, turn); };
          Quantized x = quantize(slots[i].values[j], load_turn, chunk.count, shared.codes[wave], shared.scales[wave]);
          multiply_step(slots[i], j, x, totals);
        }
      }
      int next = step + DEPTH;
      load(operands, gathered, sources_of(operands, gathered, next / CHUNK_STEPS * WAVES + wave),
           next % CHUNK_STEPS * STEP_GROUPS, slots[i]);
      schedule_boundary();
      if (step < 0 || step % CHUNK_STEPS < CHUNK_STEPS - 1) continue;
      int stage = step / CHUNK_STEPS;
      take_totals(totals, shared.products[stage % 2] + wave * PART_ROWS);
      barrier();
      add_products(shared, stage, sum);
    }
    if (first < 0) {
      order_pairs(shared, expert_weights, rows * EXPERTS_PER_ROW);
      sum.left = thread_id() / ROW_THREADS < rows ? EXPERTS_PER_ROW : 0;
      find_next(shared, sum);
    }
  }
}

DEVICE void moe_down(Workgroup workgroup, Shared &shared, const bf16 *activated, const int *expert_ids,
                     const float *expert_weights, const uint8 *weight, const float *weight_scales, bf16 *result) {
  int first_row = workgroup.y * ROW_BLOCK, first_band = workgroup.x * WORKGROUP_BANDS;
  int rows = ROWS - first_row < ROW_BLOCK ? ROWS - first_row : ROW_BLOCK;
  int64 first_pair = int64(first_row) * EXPERTS_PER_ROW;
  gather_pairs(expert_ids + first_pair, rows * EXPERTS_PER_ROW, shared.gathered);
  Operands operands = {activated + first_pair * COLUMNS, weight, weight_scales, first_band};
  RowSum sum = {};
  sum_experts(shared, operands, expert_weights + first_pair, rows, sum);
  int row = thread_id() / ROW_THREADS;
  if (row < rows)
    store_row(sum, first_band * TILE + thread_id() % ROW_THREADS * OWNED,
              result + row_major_offset(first_row + row, 0, BANDS * TILE));
}
