// Second matrix of the routed experts and their weighted sum, for WORKGROUP_PARTS parts of PART_ROWS columns of all
// rows.
//
// The workgroup goes through all chunks of pairs, in order of their experts and WAVES at a time (a stage): a wave
// multiplies one chunk with the expert's parts, so that an expert's weight is read from memory once. The products of
// a stage meet in workgroup memory, where the threads that own a row add those of its experts: always in ascending
// order of the experts, whatever the other rows are. The operands of the next groups, also of the next stages, are
// always under way.
//
// ROWS, EXPERTS_PER_ROW, EXPERTS, BANDS, COLUMNS, ROW_BLOCK and WORKGROUP_PARTS are compile-time constants.
#include "bf16.h"
#include "expert_pairs.h"
#include "pipeline.h"
#include "read_once.h"

constexpr int WAVES = GATHER_THREADS / WAVE_SIZE;
constexpr int FRAGMENTS = GROUP / FRAGMENT_COLUMNS;
constexpr int PARTS = BANDS * FRAGMENT_PARTS;
constexpr int PART_FRAGMENTS = divide_up(WORKGROUP_PARTS, FRAGMENT_PARTS);
constexpr int OUTPUTS = WORKGROUP_PARTS * PART_ROWS;
constexpr int GROUPS = COLUMNS / GROUP;
constexpr int SCALE_ROWS = divide_up(BANDS * TILE, GROUP);
constexpr int BLOCK = ROWS < ROW_BLOCK ? ROWS : ROW_BLOCK;
constexpr int PAIRS = BLOCK * EXPERTS_PER_ROW;
constexpr int OWN_PAIRS = divide_up(PAIRS, GATHER_THREADS);
// A step is a chunk's product over one group. The operands of SLOTS steps are under way, as many as fit in registers;
// whole chunks, if any.
constexpr int MOST_LOADS = FRAGMENT_PARTS == 1 ? 24 : 16;
constexpr int MOST_SLOTS = MOST_LOADS / ((WORKGROUP_PARTS + 1) * FRAGMENTS);
constexpr int SLOTS = MOST_SLOTS < GROUPS ? MOST_SLOTS : MOST_SLOTS / GROUPS * GROUPS;
// The rows of a workgroup lie in so many rows of scale blocks at most.
constexpr int SCALE_BLOCKS = GROUP % OUTPUTS == 0 ? 1 : 2;
static_assert(OUTPUTS <= GROUP);
constexpr int PRODUCT_STRIDE = OUTPUTS + 4;  // rows start in different banks

// The threads share the rows' columns: each owns some of a row, at least two, which it stores together.
static constexpr int columns_owned(int most) {
  return OUTPUTS % most == 0 && BLOCK * OUTPUTS <= GATHER_THREADS * most ? most : columns_owned(most + 2);
}
constexpr int OWNED = columns_owned(2), ROW_THREADS = OUTPUTS / OWNED;

struct Shared {
  alignas(16) float products[2][WAVES * PART_ROWS][PRODUCT_STRIDE];  // of a stage's chunks
  ExpertPairs<EXPERTS, PAIRS> gathered;
  float share[PAIRS];                    // the experts' weights
  uint16 places[PAIRS], ordered[PAIRS];  // see `order_pairs`
  float ordered_weight[PAIRS];
  float sums[OWNED][GATHER_THREADS];  // each thread's own columns: registers are all taken
};

struct Operands {
  const uint8 *values;
  const float *scales;
  const uint8 *weight;
  const float *weight_scales;
  int first_part;
};

// Gathers the pairs and keeps their shares. These are loaded before the first part of an expert: what is loaded after
// that arrives after it, even from a cache.
DEVICE void gather_pairs_and_shares(Shared &shared, const int *expert_ids, const float *expert_weights, int pairs) {
  float shares[OWN_PAIRS];
#pragma unroll
  for (int i = 0; i < OWN_PAIRS; ++i) {
    int pair = i * GATHER_THREADS + thread_id();
    shares[i] = pair < pairs ? expert_weights[pair] : 0;
  }
  gather_pairs<EXPERTS_PER_ROW>(expert_ids, pairs, shared.gathered);
#pragma unroll
  for (int i = 0; i < OWN_PAIRS; ++i) {
    int pair = i * GATHER_THREADS + thread_id();
    if (pair < pairs) shared.share[pair] = shares[i];  // read by this thread alone
  }
}

// The place of a pair's product among all products is its chunk * PART_ROWS + its place in the chunk. Puts, by row,
// the places of its pairs and their shares in ascending order of the places.
DEVICE void order_pairs(Shared &shared, int pairs) {
  auto &[products, gathered, share, places, ordered, ordered_weight, sums] = shared;
  for (int place = thread_id(); place < gathered.chunks * PART_ROWS; place += GATHER_THREADS) {
    Chunk chunk = gathered.chunk[place / PART_ROWS];
    if (place % PART_ROWS < chunk.count) places[pair_of(gathered, chunk, place % PART_ROWS)] = uint16(place);
  }
  barrier();
  for (int pair = thread_id(); pair < pairs; pair += GATHER_THREADS) {
    int first = pair / EXPERTS_PER_ROW * EXPERTS_PER_ROW, place = places[pair], order = first;
#pragma unroll
    for (int j = 0; j < EXPERTS_PER_ROW; ++j) order += places[first + j] < place;
    ordered[order] = uint16(place);
    ordered_weight[order] = share[pair];
  }
  barrier();
}

// The last workgroup may have fewer parts: it reads the last one repeatedly.
DEVICE int part_at(const Operands &from, int index) {
  int part = from.first_part + index;
  return PARTS % WORKGROUP_PARTS == 0 || part < PARTS ? part : PARTS - 1;
}

// The row of scale blocks of a part's rows.
DEVICE int scale_row_of(const Operands &from, int index) { return part_at(from, index) * PART_ROWS / GROUP; }

// Where this lane's operands of a chunk's first group lie; of the weight and its scales, before the parts' offsets.
struct Sources {
  const uint8 *weight;
  int values;
  int scale;
  int weight_scales;
};

// Beyond the last chunk, of that one again, whose product nobody reads then; but every lane loads the same weights.
// Not loading would leave the number of loads under way unknown, and AMD's compiler would wait for all of them.
DEVICE Sources sources_of(const Operands &from, const ExpertPairs<EXPERTS, PAIRS> &gathered, int index) {
  bool exists = index < gathered.chunks;
  Chunk chunk = gathered.chunk[exists ? index : gathered.chunks - 1];
  int pair = pair_of(gathered, chunk, fragment_row(0)), column = fragment_tile() * TILE;
  int64 offset = tiled_16x16_offset(int64(chunk.expert) * (BANDS * TILE) + fragment_row(0), column, COLUMNS);
  return {from.weight + (exists ? offset : 0), int(row_major_offset(pair, column, COLUMNS)), pair,
          chunk.expert * (SCALE_ROWS * GROUPS)};
}

// A lane's operands of one step.
struct Slot {
  uint32x4 weight[WORKGROUP_PARTS][FRAGMENTS];
  uint32x4 values[FRAGMENTS];
  float scale;  // of row fragment_row(0) of `values`
  float weight_scales[SCALE_BLOCKS];  // of the first and the last part
};

DEVICE void load_weights(const Operands &operands, const Sources &from, int group, Slot &slot) {
#pragma unroll
  for (int part = 0; part < WORKGROUP_PARTS; ++part) {
    const uint8 *weight =
        from.weight + tiled_16x16_offset(part_at(operands, part) * PART_ROWS, group * GROUP, COLUMNS);
#pragma unroll
    for (int i = 0; i < FRAGMENTS; ++i)
      slot.weight[part][i] = load_once(weight + i * FRAGMENT_COLUMNS * TILE);
  }
#pragma unroll
  for (int i = 0; i < SCALE_BLOCKS; ++i)
    slot.weight_scales[i] = operands.weight_scales[from.weight_scales + group +
                                                   scale_row_of(operands, i * (WORKGROUP_PARTS - 1)) * GROUPS];
}

DEVICE void load_values(const Operands &operands, const Sources &from, int group, Slot &slot) {
#pragma unroll
  for (int i = 0; i < FRAGMENTS; ++i)
    slot.values[i] = *(const uint32x4 *)(operands.values + from.values + (group * GROUP + i * FRAGMENT_COLUMNS));
  slot.scale = operands.scales[from.scale + group * (ROWS * EXPERTS_PER_ROW)];
}

using Totals = float[PART_FRAGMENTS][PART_COLUMNS][ACCUMULATOR_ROWS];

// The part whose rows row r of the accumulator of fragment `index` are; the last fragment's last part may be there
// twice.
DEVICE int part_of(int index, int part) {
  return index * FRAGMENT_PARTS + part < WORKGROUP_PARTS ? index * FRAGMENT_PARTS + part : WORKGROUP_PARTS - 1;
}

DEVICE void multiply_slot(const Operands &operands, const Slot &slot, Totals &totals) {
#pragma unroll
  for (int f = 0; f < PART_FRAGMENTS; ++f) {
    float sums[PART_COLUMNS][ACCUMULATOR_ROWS] = {};
#pragma unroll
    for (int i = 0; i < FRAGMENTS; ++i) {
      Fragment weight;
#pragma unroll
      for (int part = 0; part < FRAGMENT_PARTS; ++part) weight.part[part] = slot.weight[part_of(f, part)][i];
      multiply_part(weight, slot.values[i], sums);
    }
#pragma unroll
    for (int c = 0; c < PART_COLUMNS; ++c) {
      float scale = of_column(slot.scale, c);
#pragma unroll
      for (int r = 0; r < ACCUMULATOR_ROWS; ++r) {
        int part = part_of(f, r * FRAGMENT_PARTS / ACCUMULATOR_ROWS);
        bool first = SCALE_BLOCKS == 1 || scale_row_of(operands, part) == scale_row_of(operands, 0);
        float weight_scale = first ? slot.weight_scales[0] : slot.weight_scales[SCALE_BLOCKS - 1];
        totals[f][c][r] += weight_scale * scale * sums[c][r];
      }
    }
  }
}

// Moves `totals` to `products`.
DEVICE void take_totals(Totals &totals, float (*products)[PRODUCT_STRIDE]) {
#pragma unroll
  for (int f = 0; f < PART_FRAGMENTS; ++f)
#pragma unroll
    for (int c = 0; c < PART_COLUMNS; ++c)
#pragma unroll
      for (int r = 0; r < ACCUMULATOR_ROWS; ++r) {
        if (f * FRAGMENT_PARTS + r * FRAGMENT_PARTS / ACCUMULATOR_ROWS < WORKGROUP_PARTS)
          products[accumulator_column(c)][f * TILE + accumulator_row(r)] = totals[f][c][r];
        totals[f][c][r] = 0;
      }
}

// Which products a thread adds, which owns some columns of a row.
struct RowSum {
  int next;  // place of the next product to add
  int left;  // how many there are still
};

// No place is as high.
constexpr int NOTHING_LEFT = 0x7FFFFFFF;

DEVICE void find_next(const Shared &shared, RowSum &sum) {
  int row_end = (thread_id() / ROW_THREADS + 1) * EXPERTS_PER_ROW;
  sum.next = sum.left > 0 ? shared.ordered[row_end - sum.left] : NOTHING_LEFT;
}

DEVICE void add_products(Shared &shared, int stage, RowSum &sum) {
  int first = stage * (WAVES * PART_ROWS), row_end = (thread_id() / ROW_THREADS + 1) * EXPERTS_PER_ROW;
  while (sum.next < first + WAVES * PART_ROWS) {
    const float *products = &shared.products[stage % 2][sum.next - first][thread_id() % ROW_THREADS * OWNED];
    float weight = shared.ordered_weight[row_end - sum.left];
#pragma unroll
    for (int i = 0; i < OWNED; ++i) shared.sums[i][thread_id()] += weight * products[i];
    --sum.left;
    find_next(shared, sum);
  }
}

DEVICE void store_row(const Shared &shared, int first_column, bf16 *row) {
#pragma unroll
  for (int i = 0; i < OWNED; i += 2)
    if (PARTS % WORKGROUP_PARTS == 0 || first_column + i < BANDS * TILE)
      *(uint32 *)(row + first_column + i) =
          to_bf16(shared.sums[i][thread_id()]) | uint32(to_bf16(shared.sums[i + 1][thread_id()])) << 16;
}

struct Step {
  int stage, group;
};

// What slot `slot` holds in turn `turn`.
DEVICE Step step_at(int turn, int slot) {
  if constexpr (SLOTS % GROUPS == 0) return {turn * (SLOTS / GROUPS) + slot / GROUPS, slot % GROUPS};
  return {(turn * SLOTS + slot) / GROUPS, (turn * SLOTS + slot) % GROUPS};
}

// Puts the sums of all chunks' products in `shared`.
DEVICE void sum_experts(EarlyWorkgroup workgroup, Shared &shared, const Operands &operands, int rows) {
  auto &gathered = shared.gathered;
  int wave = uniform_wave_id();
  // Whole turns of the slots, with no chunk in the last steps: leaving in between would hide the number of loads that
  // are under way from the compiler.
  int turns = divide_up(divide_up(gathered.chunks, WAVES) * GROUPS, SLOTS);
  Slot slots[SLOTS];
  Totals totals = {};
  Sources sources;
  auto go_to = [&](Step step) INLINE {
    if (step.group == 0) sources = sources_of(operands, gathered, step.stage * WAVES + wave);
    return step.group;
  };
#pragma unroll
  for (int i = 0; i < SLOTS; ++i) {
    int group = go_to(step_at(0, i));
    load_weights(operands, sources, group, slots[i]);
    if (!workgroup.waits()) load_values(operands, sources, group, slots[i]);
    schedule_boundary();
  }
  order_pairs(shared, rows * EXPERTS_PER_ROW);
  RowSum sum = {};
  sum.left = thread_id() / ROW_THREADS < rows ? EXPERTS_PER_ROW : 0;
#pragma unroll
  for (int column = 0; column < OWNED; ++column) shared.sums[column][thread_id()] = 0;
  find_next(shared, sum);
  workgroup.await_inputs();
  if (workgroup.waits())
#pragma unroll
    for (int i = 0; i < SLOTS; ++i) {
      int group = go_to(step_at(0, i));
      load_values(operands, sources, group, slots[i]);
      schedule_boundary();
    }
  workgroup.leave();
  for (int turn = 0; turn < turns; ++turn) {
#pragma unroll
    for (int i = 0; i < SLOTS; ++i) {
      Step step = step_at(turn, i);
      multiply_slot(operands, slots[i], totals);
      int next_group = go_to(step_at(turn + 1, i));
      load_weights(operands, sources, next_group, slots[i]);
      load_values(operands, sources, next_group, slots[i]);
      schedule_boundary();
      if (step.group < GROUPS - 1) continue;
      take_totals(totals, shared.products[step.stage % 2] + wave * PART_ROWS);
      barrier();
      add_products(shared, step.stage, sum);
    }
  }
}

DEVICE void moe_down(EarlyWorkgroup workgroup, Shared &shared, const uint8 *values, const float *scales,
                     const int *expert_ids, const float *expert_weights, const uint8 *weight,
                     const float *weight_scales, bf16 *result) {
  int first_row = workgroup.y * ROW_BLOCK, first_part = workgroup.x * WORKGROUP_PARTS;
  int rows = ROWS - first_row < ROW_BLOCK ? ROWS - first_row : ROW_BLOCK;
  int64 first_pair = int64(first_row) * EXPERTS_PER_ROW;
  gather_pairs_and_shares(shared, expert_ids + first_pair, expert_weights + first_pair, rows * EXPERTS_PER_ROW);
  Operands operands = {values + first_pair * COLUMNS, scales + first_pair, weight, weight_scales, first_part};
  sum_experts(workgroup, shared, operands, rows);
  int row = thread_id() / ROW_THREADS;
  if (row < rows)
    store_row(shared, first_part * PART_ROWS + thread_id() % ROW_THREADS * OWNED,
              result + row_major_offset(first_row + row, 0, BANDS * TILE));
}
