// Attention of up to HEADS heads of one row over one split of its selected cache slots: a partial result.
//
// Slots are taken in tiles of 64; split s has every SPLITS-th tile. A tile's cache rows are gathered into workgroup
// memory while the tile before is computed, then read twice: as keys (FP8 products with the query) and as values
// (float16 products with the softmax weights), both on the matrix unit with the heads as its columns. The softmax is
// kept online. WIDTH (latent and rope columns, one byte each) and VALUE_DIM (latent columns) are multiples of 64; TOPK
// is the number of selected slots of a row. TILES are in workgroup memory at a time, one where the next one's rows wait
// in registers.
#include "float_math.h"
#include "fp8.h"
#include "half_matrix.h"
#include "layouts.h"
#include "matrix.h"
#include "pipeline.h"
#include "reduce.h"
#include "row_gather.h"
#include "shares.h"

constexpr int THREADS = 256;
constexpr int WAVES = THREADS / WAVE_SIZE;
constexpr int SLOTS = 64;
constexpr int LOAD = 16;
constexpr int ROUNDS = divide_up(divide_up(TOPK, SLOTS), SPLITS);
constexpr int SLOTS_PER_WAVE = SLOTS / WAVES;
constexpr int FRAGMENTS = WIDTH / FRAGMENT_COLUMNS;
constexpr int LOADS_PER_SLOT = WIDTH / LOAD;
constexpr int LOADS_PER_LANE = SLOTS_PER_WAVE * LOADS_PER_SLOT / WAVE_SIZE;
static_assert(WIDTH % FRAGMENT_COLUMNS == 0 && VALUE_DIM % FRAGMENT_COLUMNS == 0);
static_assert(SLOTS_PER_WAVE * LOADS_PER_SLOT % WAVE_SIZE == 0 && HEADS <= TILE);

// Heads are padded to whole parts of a fragment: 8 or 16 columns of the products.
constexpr int HEAD_PARTS = divide_up(HEADS, PART_ROWS);
constexpr int HEAD_COLUMNS = HEAD_PARTS * PART_ROWS;
constexpr int HEADS_PER_LANE = HEAD_PARTS * PART_COLUMNS;
constexpr int THREADS_PER_HEAD = THREADS / HEAD_COLUMNS;
constexpr int SLOTS_PER_THREAD = SLOTS / THREADS_PER_HEAD;

// A wave multiplies the query with 16 slots; where there are waves to spare, with a slice of their columns.
constexpr int SLOT_TILES = SLOTS / TILE;
constexpr int SLICES = WAVES / SLOT_TILES;
constexpr int FRAGMENTS_PER_SLICE = divide_up(FRAGMENTS, SLICES);

// A wave multiplies the weights with strips of the values' columns.
constexpr int STEPS = SLOTS / HALF_COLUMNS;
constexpr int STRIPS = VALUE_DIM / WORD_COLUMNS;
constexpr int STRIPS_PER_WAVE = divide_up(STRIPS, WAVES);
constexpr int QUADS = ACCUMULATOR_ROWS / FRAGMENT_PARTS;

// Strides that keep lanes on different banks.
constexpr int SCORE_STRIDE = SLOTS + 4;
constexpr int WEIGHT_STRIDE = SLOTS + 16;

using SlotTile = uint32x4[SLOTS][LOADS_PER_SLOT];

struct Shared {
  SlotTile tiles[TILES];
  float scores[SLICES][HEAD_COLUMNS][SCORE_STRIDE];
  uint32x2 weights[HEAD_COLUMNS][WEIGHT_STRIDE / 4];
  int slots[SLOTS];
  float keeps[HEAD_COLUMNS];
  OfWaves<THREADS, int> of_wave;
};

// Where load `load` of the four of a fragment's columns lies in a slot's row: loads are exchanged, so that lanes on
// neighbouring slots or loads meet no bank twice, in either use of the rows.
DEVICE int place_of_load(int slot, int fragment, int load) {
  return fragment * 4 + (load ^ ((slot >> 1 & 1) * 2 + (slot >> 2 & 1)));
}

// Weights lie in the order in which a lane takes them: its four slots of 16 are four apart.
DEVICE int place_of_weight(int slot) { return slot / TILE * TILE + slot % 4 * 4 + slot % TILE / 4; }

struct Selection {
  const int *slots;
  int split;
};

// Slot `place` of the tile that the split takes in `round`, or -1. No branch: several loads can be under way at once.
DEVICE int slot_of(const Selection &selection, int round, int place) {
  int index = (round * SPLITS + selection.split) * SLOTS + place;
  int slot = selection.slots[index < TOPK ? index : TOPK - 1];
  return index < TOPK ? slot : -1;
}

// Rounds of the split up to its last slot.
DEVICE int used_rounds(Shared &shared, const Selection &selection) {
  int slots[divide_up(ROUNDS * SLOTS, THREADS)], used = 0;
#pragma unroll
  for (int i = 0; i < divide_up(ROUNDS * SLOTS, THREADS); ++i) {
    int index = thread_id() + i * THREADS;
    slots[i] = slot_of(selection, index / SLOTS, index % SLOTS);
  }
#pragma unroll
  for (int i = 0; i < divide_up(ROUNDS * SLOTS, THREADS); ++i)
    used = slots[i] >= 0 ? (thread_id() + i * THREADS) / SLOTS + 1 : used;
  return reduce_threads<Maximum, THREADS>(used, shared.of_wave);
}

// A wave gathers the rows of SLOTS_PER_WAVE slots, the loads of a row by neighbouring lanes. Each lane knows one slot.
using SlotRows = RowGather<LOADS_PER_LANE>;

DEVICE int slot_of_lane() { return lane_id() % SLOTS_PER_WAVE; }
DEVICE int load_of_lane(int i) { return i * WAVE_SIZE + lane_id(); }
DEVICE int slot_of_load(int i) { return load_of_lane(i) / LOADS_PER_SLOT; }

DEVICE uint32x4 *place_of(SlotTile &tile, int i) {
  int slot = wave_id() * SLOTS_PER_WAVE + slot_of_load(i), column = load_of_lane(i) % LOADS_PER_SLOT;
  return &tile[slot][place_of_load(slot, column / 4, column % 4)];
}

// Starts the loads of the rows of the wave's slots; zeros for a slot that is -1.
DEVICE void start_rows(SlotTile &tile, SlotRows &rows, const uint8 *cache, int lane_slot) {
  rows.start(
      [&](int i) {
        int slot = wave_read(lane_slot, slot_of_load(i));
        const uint8 *source = cache + slot_offset(slot, WIDTH) + load_of_lane(i) % LOADS_PER_SLOT * LOAD;
        return slot < 0 ? nullptr : source;
      },
      [&](int i) { return place_of(tile, i); });
}

// Those of all but the last LATER tiles that were started.
template <int LATER> DEVICE void finish_rows(Shared &shared, SlotTile &tile, SlotRows &rows, int lane_slot) {
  if (lane_id() < SLOTS_PER_WAVE) shared.slots[wave_id() * SLOTS_PER_WAVE + lane_id()] = lane_slot;
  rows.finish<LATER>([&](int i) { return place_of(tile, i); });
}

using QueryParts = uint32x4[FRAGMENTS_PER_SLICE][HEAD_PARTS];

// The columns of this wave's slice; heads and fragments past the last repeat it.
DEVICE void load_query(const uint8 *query, int heads, int slice, QueryParts &parts) {
#pragma unroll
  for (int f = 0; f < FRAGMENTS_PER_SLICE; ++f)
#pragma unroll
    for (int part = 0; part < HEAD_PARTS; ++part) {
      int head = fragment_row(part), fragment = slice * FRAGMENTS_PER_SLICE + f;
      const uint8 *source = query + (head < heads ? head : heads - 1) * WIDTH + fragment_tile() * LOAD;
      parts[f][part] =
          *(const uint32x4 *)(source + (fragment < FRAGMENTS ? fragment : FRAGMENTS - 1) * FRAGMENT_COLUMNS);
    }
}

// scores[slice]: products of the query with this wave's 16 slots over its slice of the columns.
DEVICE void multiply_keys(Shared &shared, const SlotTile &tile, const QueryParts &query, int slot_tile, int slice) {
  Accumulator sums[2];  // neither product waits for the last one's sum
#pragma unroll
  for (int f = 0; f < FRAGMENTS_PER_SLICE; ++f) {
    int fragment = slice * FRAGMENTS_PER_SLICE + f;
    if (past_some_end(SLICES, FRAGMENTS_PER_SLICE, FRAGMENTS, f) && fragment >= FRAGMENTS) break;
    Fragment keys;
#pragma unroll
    for (int part = 0; part < FRAGMENT_PARTS; ++part) {
      int slot = slot_tile * TILE + fragment_row(part);
      keys.part[part] = tile[slot][place_of_load(slot, fragment, fragment_tile())];
    }
#pragma unroll
    for (int part = 0; part < HEAD_PARTS; ++part)
      multiply_part(keys, query[f][part], sums[f % 2].element + part * PART_COLUMNS);
  }
#pragma unroll
  for (int c = 0; c < HEADS_PER_LANE; ++c)
#pragma unroll
    for (int r = 0; r < ACCUMULATOR_ROWS; ++r)
      shared.scores[slice][accumulator_column(c)][slot_tile * TILE + accumulator_row(r)] =
          sums[0].element[c][r] + sums[1].element[c][r];
}

// Of one head, in base 2: the largest score so far, and the sum of this thread's weights relative to it.
struct Softmax {
  float largest, total;
};

// Turns the head's scores of a tile into weights; what was summed before must be multiplied by its `keeps`.
DEVICE void update_softmax(Shared &shared, Softmax &softmax, float scale_of_log2) {
  int head = thread_id() / THREADS_PER_HEAD, first = thread_id() % THREADS_PER_HEAD;
  float scores[SLOTS_PER_THREAD], highest = softmax.largest;
#pragma unroll
  for (int i = 0; i < SLOTS_PER_THREAD; ++i) {
    int slot = first + i * THREADS_PER_HEAD;
    float score = shared.scores[0][head][slot];
#pragma unroll
    for (int slice = 1; slice < SLICES; ++slice) score += shared.scores[slice][head][slot];
    scores[i] = shared.slots[slot] < 0 ? -__builtin_inff() : score * scale_of_log2;
    highest = Maximum::combine(scores[i], highest);
  }
  highest = reduce_lanes<Maximum, THREADS_PER_HEAD>(highest);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < SLOTS_PER_THREAD; ++i) {
    // Not by subtraction alone: without any slot so far, infinity - infinity is no number.
    float weight = scores[i] == -__builtin_inff() ? 0 : exponential2(scores[i] - highest);
    ((uint16 *)shared.weights[head])[place_of_weight(first + i * THREADS_PER_HEAD)] = to_float16x2(weight, 0);
    sum += weight;
  }
  float keep = softmax.largest == -__builtin_inff() ? 0 : exponential2(softmax.largest - highest);
  softmax.total = softmax.total * keep + sum;
  softmax.largest = highest;
  if (first == 0) shared.keeps[head] = keep;
}

using ValueSums = Accumulator[STRIPS_PER_WAVE][WORD_TILES];

DEVICE void scale_values(ValueSums &sums, const float (&factors)[HEAD_COLUMNS]) {
#pragma unroll
  for (int c = 0; c < HEADS_PER_LANE; ++c) {
    float factor = factors[accumulator_column(c)];
#pragma unroll
    for (int s = 0; s < STRIPS_PER_WAVE; ++s)
#pragma unroll
      for (int tile = 0; tile < WORD_TILES; ++tile)
#pragma unroll
        for (int r = 0; r < ACCUMULATOR_ROWS; ++r) sums[s][tile].element[c][r] *= factor;
  }
}

DEVICE void multiply_values(const Shared &shared, const SlotTile &tile, ValueSums &sums) {
#pragma unroll
  for (int step = 0; step < STEPS; ++step) {
    uint32x2 weights[HEAD_PARTS];
#pragma unroll
    for (int part = 0; part < HEAD_PARTS; ++part)
      weights[part] = shared.weights[fragment_row(part)][step * (TILE / HALF_COLUMNS_PER_LANE) + fragment_tile()];
#pragma unroll
    for (int s = 0; s < STRIPS_PER_WAVE; ++s) {
      int strip = uniform_wave_id() * STRIPS_PER_WAVE + s;
      if (past_some_end(WAVES, STRIPS_PER_WAVE, STRIPS, s) && strip >= STRIPS) break;
      uint32 words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        int slot = step * TILE + i * 4 + fragment_tile(), column = strip * WORD_COLUMNS + lane_word() * 4;
        int place = place_of_load(slot, column / FRAGMENT_COLUMNS, column % FRAGMENT_COLUMNS / LOAD);
        words[i] = tile[slot][place][lane_word() % 4];
      }
      HalfFragment values[WORD_TILES];
      f16_from_words(words, values);
#pragma unroll
      for (int i = 0; i < WORD_TILES; ++i)
#pragma unroll
        for (int part = 0; part < HEAD_PARTS; ++part)
          multiply_part_f16(values[i], weights[part], sums[s][i].element + part * PART_COLUMNS);
    }
  }
}

// Heads lie SPLITS * VALUE_DIM apart.
DEVICE void store_values(const ValueSums &sums, int heads, uint16 *values) {
#pragma unroll
  for (int s = 0; s < STRIPS_PER_WAVE; ++s) {
    int strip = uniform_wave_id() * STRIPS_PER_WAVE + s;
    if (past_some_end(WAVES, STRIPS_PER_WAVE, STRIPS, s) && strip >= STRIPS) break;
#pragma unroll
    for (int c = 0; c < HEADS_PER_LANE; ++c) {
      int head = accumulator_column(c);
      if (head >= heads) continue;
#pragma unroll
      for (int quad = 0; quad < QUADS; ++quad) {
        // Four neighbouring columns, of a lane's word.
        float four[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
          four[i] = sums[s][i / FRAGMENT_PARTS].element[c][quad * FRAGMENT_PARTS + i % FRAGMENT_PARTS];
        int column = strip * WORD_COLUMNS + word_column(0, accumulator_row(quad * FRAGMENT_PARTS));
        *(uint32x2 *)(values + int64(head) * (SPLITS * VALUE_DIM) + column) = {to_float16x2(four[0], four[1]),
                                                                               to_float16x2(four[2], four[3])};
      }
    }
  }
}

// `values` and `log_sums` start at the first head's split.
DEVICE void attend(Shared &shared, const uint8 *query, const uint8 *cache, const Selection &selection, uint16 *values,
                   float *log_sums, int heads, float scale) {
  int place = wave_id() * SLOTS_PER_WAVE + slot_of_lane();
  int slot = slot_of(selection, 0, place), next_slot = slot_of(selection, 1, place);
  SlotRows rows;
  start_rows(shared.tiles[0], rows, cache, slot);
  int wave = uniform_wave_id(), slot_tile = wave % SLOT_TILES, slice = wave / SLOT_TILES;
  QueryParts queries;
  load_query(query, heads, slice, queries);
  int used = used_rounds(shared, selection);

  Softmax softmax = {-__builtin_inff(), 0};
  ValueSums sums;
  for (int round = 0; round < used; ++round) {
    auto &tile = shared.tiles[round % TILES];
    if (TILES > 1) start_rows(shared.tiles[(round + 1) % TILES], rows, cache, next_slot);
    finish_rows<TILES - 1>(shared, tile, rows, slot);
    barrier();
    slot = next_slot;
    next_slot = slot_of(selection, round + 2, place);
    if (rows.IN_REGISTERS) {
      start_rows(tile, rows, cache, slot);
      schedule_boundary();
    }
    multiply_keys(shared, tile, queries, slot_tile, slice);
    barrier();
    update_softmax(shared, softmax, scale * 1.44269504f);
    barrier();
    if (round > 0) scale_values(sums, shared.keeps);
    multiply_values(shared, tile, sums);
    barrier();
    if (!rows.IN_REGISTERS && TILES == 1 && round + 1 < used) start_rows(tile, rows, cache, slot);
  }
  // Nothing may arrive when this memory serves for something else.
  if (used == 0 || TILES > 1) finish_rows<0>(shared, shared.tiles[0], rows, slot);

  constexpr float LOG_2 = 0.693147181f;
  float total = reduce_lanes<Sum, THREADS_PER_HEAD>(softmax.total);
  int head = thread_id() / THREADS_PER_HEAD;
  if (thread_id() % THREADS_PER_HEAD == 0) {
    shared.keeps[head] = used > 0 ? 1.0f / total : 0.0f;
    if (head < heads)
      log_sums[head * SPLITS] =
          used > 0 ? (softmax.largest + logarithm2(total)) * LOG_2 : -__builtin_inff();
  }
  barrier();
  scale_values(sums, shared.keeps);
  store_values(sums, heads, values);
}

DEVICE void sparse_mla(Workgroup workgroup, Shared &shared, const uint8 *query, const uint8 *cache, const int *slots,
                       uint16 *values, float *log_sums, int heads, int scale) {
  int row = workgroup.z, split = workgroup.y, first = workgroup.x * HEADS;
  int64 head = int64(row) * heads + first, index = head * SPLITS + split;
  attend(shared, query + head * WIDTH, cache, {slots + row_major_offset(row, 0, TOPK), split},
         values + index * VALUE_DIM, log_sums + index, heads - first < HEADS ? heads - first : HEADS,
         __builtin_bit_cast(float, scale));
}
