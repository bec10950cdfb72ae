// Attention query of 16 rows of one head: a workgroup makes COLUMNS latent columns, and some rows' rotated ones.
//
// Latent columns are products with the key half of kv_b, whose rows (the contracted dimension, NOPE of them) are read
// once: the waves divide them in SLICES, and the slices' sums are added in order.
// THREADS, COLUMNS, HEADS, HEAD_ROWS (of kv_b), LATENT, NOPE, ROPE_DIM and ROPE_HALVES are compile-time constants.
#include "bf16.h"
#include "fp8.h"
#include "half_matrix.h"
#include "layouts.h"
#include "pipeline.h"
#include "rope.h"
#include "shares.h"

constexpr int WAVES_PER_SLICE = COLUMNS / WORD_COLUMNS;
constexpr int SLICES = THREADS / WAVE_SIZE / WAVES_PER_SLICE;
constexpr int STEPS = NOPE / HALF_COLUMNS;
constexpr int STEPS_PER_SLICE = divide_up(STEPS, SLICES);
constexpr int SLABS = LATENT / COLUMNS;
constexpr int WIDTH = LATENT + ROPE_DIM;
constexpr int ROPE_VECTOR = 8;
constexpr int ROPE_LANES = ROPE_DIM / ROPE_VECTOR;
constexpr int ROPE_ROWS = divide_up(TILE, SLABS);  // of a workgroup
static_assert(LATENT % COLUMNS == 0 && NOPE % HALF_COLUMNS == 0 && ROPE_ROWS * ROPE_LANES <= THREADS);

struct Shared {
  float sums[SLICES][TILE][COLUMNS + 4];  // four more, so that neighbouring rows meet no bank twice
};

struct Head {
  const bf16 *q;
  uint8 *result;
  int rows, index, first_row;
};

// Row `tile_row` of 16 among all; rows past the end repeat the last one.
DEVICE int row_at(const Head &head, int tile_row) {
  int row = head.first_row + tile_row;
  return row < head.rows ? row : head.rows - 1;
}

// Where its head lies among all heads of all rows.
DEVICE int64 head_of_row(const Head &head, int tile_row) {
  return int64(row_at(head, tile_row)) * HEADS + head.index;
}

// A lane's operands of its wave's slice.
struct Operands {
  uint32 words[STEPS_PER_SLICE][4];
  HalfFragment query[STEPS_PER_SLICE];
  float scale[STEPS_PER_SLICE];
};

// The slice of the contracted dimension, and the columns among the workgroup's, that this wave takes.
DEVICE int own_slice() { return uniform_wave_id() / WAVES_PER_SLICE; }
DEVICE int own_column() { return uniform_wave_id() % WAVES_PER_SLICE * WORD_COLUMNS; }

DEVICE Operands load_operands(const Head &head, const uint8 *weight, const float *weight_scales, int first_weight_row,
                              int first_column) {
  Operands operands;
  int column = first_column + own_column(), first_step = own_slice() * STEPS_PER_SLICE;
  // Of the slice's first step; the others lie at distances that are known when compiling, which saves registers.
  int first_row = first_weight_row + first_step * HALF_COLUMNS;
  int nope = first_step * HALF_COLUMNS + fragment_tile() * HALF_COLUMNS_PER_LANE;
  const uint8 *words = weight + row_major_offset(first_weight_row + nope, column + lane_word() * 4, LATENT);
  const bf16 *query[FRAGMENT_PARTS];
#pragma unroll
  for (int part = 0; part < FRAGMENT_PARTS; ++part)
    query[part] = head.q + row_major_offset(head_of_row(head, fragment_row(part)), nope, NOPE + ROPE_DIM);
#pragma unroll
  for (int s = 0; s < STEPS_PER_SLICE; ++s) {
    int step = s;
    // Where a slice is shorter than others, a step that is not used is loaded in place of the missing one.
    if (past_some_end(SLICES, STEPS_PER_SLICE, STEPS, s) && first_step + s >= STEPS) step = -first_step;
#pragma unroll
    for (int i = 0; i < 4; ++i) operands.words[s][i] = *(const uint32 *)(words + (step * HALF_COLUMNS + i) * LATENT);
#pragma unroll
    for (int part = 0; part < FRAGMENT_PARTS; ++part)
      operands.query[s].part[part] = *(const uint32x2 *)(query[part] + step * HALF_COLUMNS);
    int scale_row = (first_row + step * HALF_COLUMNS) / GROUP;
    operands.scale[s] = weight_scales[scale_row * divide_up(LATENT, GROUP) + column / GROUP];
  }
  return operands;
}

// Puts the products of the wave's slice in `shared`.
DEVICE void multiply_slice(Shared &shared, const Operands &operands) {
  Accumulator sums[WORD_TILES];
#pragma unroll
  for (int s = 0; s < STEPS_PER_SLICE; ++s) {
    if (past_some_end(SLICES, STEPS_PER_SLICE, STEPS, s) && own_slice() * STEPS_PER_SLICE + s >= STEPS) break;
    HalfFragment keys[WORD_TILES];
    bf16_from_words(operands.words[s], keys);
#pragma unroll
    for (int tile = 0; tile < WORD_TILES; ++tile) {
      Accumulator product;
#pragma unroll
      for (int part = 0; part < FRAGMENT_PARTS; ++part)
        multiply_part_bf16(operands.query[s], keys[tile].part[part], product.element + part * PART_COLUMNS);
#pragma unroll
      for (int c = 0; c < ACCUMULATOR_COLUMNS; ++c)
#pragma unroll
        for (int r = 0; r < ACCUMULATOR_ROWS; ++r)
          sums[tile].element[c][r] += product.element[c][r] * operands.scale[s];
    }
  }
#pragma unroll
  for (int c = 0; c < PART_COLUMNS; ++c) {
    int column = own_column() + word_column(0, accumulator_column(c));
#pragma unroll
    for (int r = 0; r < ACCUMULATOR_ROWS; ++r) {
      float4 four;  // neighbouring columns, of a lane's word
#pragma unroll
      for (int i = 0; i < 4; ++i)
        four[i] = sums[i / FRAGMENT_PARTS].element[i % FRAGMENT_PARTS * PART_COLUMNS + c][r];
      *(float4 *)&shared.sums[own_slice()][accumulator_row(r)][column] = four;
    }
  }
}

// Adds the slices' products up.
DEVICE void store_absorbed(const Shared &shared, const Head &head, int first_column) {
  constexpr int VECTOR = 4, VECTORS = TILE * COLUMNS / VECTOR;
  static_assert(VECTORS % THREADS == 0);
#pragma unroll
  for (int vector = thread_id(); vector < VECTORS; vector += THREADS) {
    int row = vector * VECTOR / COLUMNS, column = vector * VECTOR % COLUMNS;
    float4 total = *(const float4 *)&shared.sums[0][row][column];
#pragma unroll
    for (int i = 1; i < SLICES; ++i) total += *(const float4 *)&shared.sums[i][row][column];
    float rounded[VECTOR] = {total[0], total[1], total[2], total[3]};
    round_to_bf16(rounded);
    if (head.first_row + row < head.rows)
      *(uint32 *)(head.result + head_of_row(head, row) * WIDTH + first_column + column) =
          to_fp8x4(rounded[0], rounded[1], rounded[2], rounded[3]);
  }
}

// The row of 16 of which this lane has rotated columns, and the first of these.
DEVICE int rope_row(int workgroup) { return workgroup * ROPE_ROWS + thread_id() / ROPE_LANES; }
DEVICE int rope_dim() { return thread_id() % ROPE_LANES * ROPE_VECTOR; }

// The lane's rotated columns, and how they are turned.
struct RopePart {
  float values[ROPE_VECTOR];
  RopeColumns<ROPE_HALVES> rope;
};

DEVICE RopePart load_rope_part(const Head &head, int row, const float *table_row) {
  RopePart part;
  load_bf16x8(head.q + (head_of_row(head, row) + 1) * (NOPE + ROPE_DIM) - ROPE_DIM + rope_dim(), part.values);
  part.rope = load_rope<ROPE_HALVES>(rope_dim(), ROPE_DIM, table_row);
  return part;
}

DEVICE void store_rope_part(const Head &head, int row, RopePart &part) {
  rotate(part.values, rope_dim(), ROPE_DIM, part.rope);
  bool own = thread_id() / ROPE_LANES < ROPE_ROWS && row < TILE;
  if (!own || head.first_row + row >= head.rows) return;
  round_to_bf16(part.values);
  *(uint32x2 *)(head.result + head_of_row(head, row) * WIDTH + LATENT + rope_dim()) = {
      to_fp8x4(part.values[0], part.values[1], part.values[2], part.values[3]),
      to_fp8x4(part.values[4], part.values[5], part.values[6], part.values[7])};
}

DEVICE void q_absorb_rope_cat(Workgroup workgroup, Shared &shared, const bf16 *q, const uint8 *weight,
                              const float *weight_scales, const float *rope_table, const int64 *positions,
                              uint8 *result, int rows) {
  Head head = {q, result, rows, workgroup.y, workgroup.z * TILE};
  int first_column = workgroup.x * COLUMNS, row = rope_row(workgroup.x);
  auto operands = load_operands(head, weight, weight_scales, workgroup.y * HEAD_ROWS, first_column);
  schedule_boundary();
  int64 position = positions[row_at(head, row)];  // the table's row waits for it
  multiply_slice(shared, operands);
  schedule_boundary();
  // What is rotated arrives while the slices are added up.
  auto part = load_rope_part(head, row, rope_table + position * ROPE_DIM);
  schedule_boundary();
  barrier();
  store_absorbed(shared, head, first_column);
  store_rope_part(head, row, part);
}
