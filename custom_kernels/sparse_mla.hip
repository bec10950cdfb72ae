// Attention of HEADS heads of one row over its selected cache slots, softmax kept online over tiles of 32
// slots. WIDTH (latent and rope columns, one byte each) and VALUE_DIM (latent columns) are multiples of 16.
#include "bf16.h"
#include "float_math.h"
#include "fp8.h"
#include "layouts.h"
#include "reduce.h"

constexpr int THREADS = 256;
constexpr int SLOTS = 32;
constexpr int LOAD = 16;
constexpr int LOADS_PER_SLOT = WIDTH / LOAD;
constexpr int LOADS_PER_TILE = SLOTS * LOADS_PER_SLOT;
constexpr int LOADS_PER_THREAD = divide_up(LOADS_PER_TILE, THREADS);
// Odd, so that lanes on consecutive slots meet no bank twice.
constexpr int LOADS_PER_PADDED_SLOT = LOADS_PER_SLOT | 1;
constexpr int SCORE_PARTS = THREADS / SLOTS;
constexpr int COLUMNS_PER_THREAD = 4;
constexpr int COLUMN_THREADS = VALUE_DIM / COLUMNS_PER_THREAD;
static_assert(HEADS <= SCORE_PARTS && COLUMN_THREADS <= THREADS);
static_assert(WIDTH % LOAD == 0 && VALUE_DIM % LOAD == 0);

constexpr int largest_power_of_two(int limit) {
  int power = 1;
  while (power * 2 <= limit) power *= 2;
  return power;
}

// Threads that share a column each take every VALUE_PARTS-th slot.
constexpr int VALUE_PARTS =
    largest_power_of_two(THREADS / COLUMN_THREADS < SLOTS ? THREADS / COLUMN_THREADS : SLOTS);

struct Tile {
  uint32x4 loads[LOADS_PER_THREAD];
};

// Tile rows of the slots first .. first + 31; those that are -1 or not below `used` are zeros.
DEVICE Tile load_tile(const uint8 *cache, const int *slots, int first, int used) {
  Tile tile;
#pragma unroll
  for (int i = 0; i < LOADS_PER_THREAD; ++i) {
    int load = thread_id() + i * THREADS, index = first + load / LOADS_PER_SLOT;
    int slot = load < LOADS_PER_TILE && index < used ? slots[index] : -1;
    tile.loads[i] = 0;
    if (slot >= 0)
      tile.loads[i] = *(const uint32x4 *)(cache + slot_offset(slot, WIDTH) + load % LOADS_PER_SLOT * LOAD);
  }
  return tile;
}

DEVICE void store_tile(const Tile &tile, uint32x4 (&keys)[SLOTS][LOADS_PER_PADDED_SLOT]) {
#pragma unroll
  for (int i = 0; i < LOADS_PER_THREAD; ++i) {
    int load = thread_id() + i * THREADS;
    if (load < LOADS_PER_TILE) keys[load / LOADS_PER_SLOT][load % LOADS_PER_SLOT] = tile.loads[i];
  }
}

// partial[part][head][slot]: the products over every SCORE_PARTS-th run of 16 columns.
DEVICE void multiply_queries(const float (&queries)[HEADS][WIDTH],
                             const uint32x4 (&keys)[SLOTS][LOADS_PER_PADDED_SLOT],
                             float (&partial)[SCORE_PARTS][HEADS][SLOTS]) {
  int slot = thread_id() % SLOTS, part = thread_id() / SLOTS;
  float sums[HEADS] = {};
  for (int load = part; load < LOADS_PER_SLOT; load += SCORE_PARTS) {
    float key[LOAD];
    from_fp8x16(keys[slot][load], key);
#pragma unroll
    for (int head = 0; head < HEADS; ++head)
#pragma unroll
      for (int i = 0; i < LOAD; ++i) sums[head] += queries[head][load * LOAD + i] * key[i];
  }
#pragma unroll
  for (int head = 0; head < HEADS; ++head) partial[part][head][slot] = sums[head];
}

struct Shared {
  union {
    uint32x4 keys[SLOTS][LOADS_PER_PADDED_SLOT];
    float sums[VALUE_PARTS][VALUE_DIM];
  } scratch;
  float queries[HEADS][WIDTH];
  float partial[SCORE_PARTS][HEADS][SLOTS];
  float weights[HEADS][SLOTS];
  float keeps[HEADS], totals[HEADS];
  OfWaves<THREADS, int> of_wave;
};

DEVICE void attend(Shared &shared, const uint8 *query, const uint8 *cache, const int *slots, bf16 *output, int topk,
                   float scale) {
  auto &[scratch, queries, partial, weights, keeps, totals, of_wave] = shared;
  const float minus_infinity = -__builtin_inff();
  const float scale_of_log2 = scale * 1.44269504f;

  int used = 0;
  for (int i = thread_id(); i < topk; i += THREADS) used = slots[i] >= 0 ? i + 1 : used;
  used = reduce_workgroup<Maximum, THREADS>(used, of_wave);
  for (int i = thread_id(); i < HEADS * LOADS_PER_SLOT; i += THREADS)
    from_fp8x16(((const uint32x4 *)query)[i], *(float (*)[LOAD])(&queries[0][0] + i * LOAD));

  // A thread sums 4 columns of its share of the slots, and keeps the softmax of one head. Where heads are
  // fewer, the surplus threads repeat the last one: whole waves take part in its reductions.
  int column_thread = thread_id() % COLUMN_THREADS, value_part = thread_id() / COLUMN_THREADS;
  int score_slot = thread_id() % SLOTS;
  bool keeps_head = thread_id() / SLOTS < HEADS;
  int score_head = keeps_head ? thread_id() / SLOTS : HEADS - 1;
  float sums[HEADS][COLUMNS_PER_THREAD] = {};
  float largest = minus_infinity, total = 0;
  Tile tile = load_tile(cache, slots, 0, used);
  for (int first = 0; first < used; first += SLOTS) {
    barrier();  // the last tile's readers are done
    store_tile(tile, scratch.keys);
    barrier();
    tile = load_tile(cache, slots, first + SLOTS, used);
    multiply_queries(queries, scratch.keys, partial);
    barrier();
    float score = 0;
#pragma unroll
    for (int part = 0; part < SCORE_PARTS; ++part) score += partial[part][score_head][score_slot];
    bool valid = first + score_slot < used && slots[first + score_slot] >= 0;
    score = valid ? score * scale_of_log2 : minus_infinity;
    float highest = Maximum::combine(reduce_lanes<Maximum, SLOTS>(score), largest);
    bool nothing_yet = highest == minus_infinity;
    float weight = nothing_yet ? 0 : exponential2(score - highest);
    float keep = nothing_yet ? 1 : exponential2(largest - highest);
    largest = highest;
    total = total * keep + reduce_lanes<Sum, SLOTS>(weight);
    if (keeps_head) {
      weights[score_head][score_slot] = weight;
      keeps[score_head] = keep;
    }
    barrier();
    if (value_part < VALUE_PARTS) {
#pragma unroll
      for (int head = 0; head < HEADS; ++head)
#pragma unroll
        for (int c = 0; c < COLUMNS_PER_THREAD; ++c) sums[head][c] *= keeps[head];
#pragma unroll 4
      for (int slot = value_part; slot < SLOTS; slot += VALUE_PARTS) {
        float4 value = from_fp8x4(((const uint32 *)scratch.keys[slot])[column_thread]);
#pragma unroll
        for (int head = 0; head < HEADS; ++head)
#pragma unroll
          for (int c = 0; c < COLUMNS_PER_THREAD; ++c) sums[head][c] += weights[head][slot] * value[c];
      }
    }
  }

  if (keeps_head && score_slot == 0) totals[score_head] = total;
#pragma unroll
  for (int head = 0; head < HEADS; ++head) {
    barrier();
    if (value_part < VALUE_PARTS)
#pragma unroll
      for (int c = 0; c < COLUMNS_PER_THREAD; ++c)
        scratch.sums[value_part][column_thread * COLUMNS_PER_THREAD + c] = sums[head][c];
    barrier();
    for (int column = thread_id(); column < VALUE_DIM; column += THREADS) {
      float sum = 0;
#pragma unroll
      for (int part = 0; part < VALUE_PARTS; ++part) sum += scratch.sums[part][column];
      output[head * VALUE_DIM + column] = to_bf16(used > 0 ? sum / totals[head] : 0.0f);
    }
  }
}

DEVICE void sparse_mla(Workgroup workgroup, Shared &shared, const uint8 *query, const uint8 *cache, const int *slots, bf16 *output,
                       int heads, int topk, int scale) {
  int row = workgroup.x;
  int64 head = int64(row) * heads + workgroup.y * HEADS;
  attend(shared, query + head * WIDTH, cache, slots + row_major_offset(row, 0, topk), output + head * VALUE_DIM, topk,
         __builtin_bit_cast(float, scale));
}
