// Attention parts of up to ROWS rows to 128 value columns of one head, quantised: a workgroup combines the parts,
// multiplies the result with 128 rows of kv_b's value half, and quantises these columns as a group.
//
// All of the weight's and the parts' bytes are loaded before the first is used. The product is on the matrix unit in
// float16, the attention rows as its columns. LATENT, SPLITS (parts), NOPE and ROWS are compile-time constants.
#include "float_math.h"
#include "group_quant.h"
#include "half_matrix.h"
#include "matrix.h"
#include "pipeline.h"

constexpr int THREADS = 256;
constexpr int WAVES = THREADS / WAVE_SIZE;
constexpr int FRAGMENTS = LATENT / FRAGMENT_COLUMNS;
constexpr int FRAGMENTS_PER_BLOCK = GROUP / FRAGMENT_COLUMNS;
constexpr int BLOCKS = divide_up(LATENT, GROUP);
constexpr int DIM_TILES = GROUP / TILE / WAVES;
constexpr int ROW_PARTS = divide_up(ROWS, PART_ROWS);
static_assert(LATENT % FRAGMENT_COLUMNS == 0 && NOPE % TILE == 0 && ROWS <= TILE);

// A vector of eight columns of one row is combined by one lane, or by several that divide the splits.
constexpr int VECTOR = 8;
constexpr int VECTORS = LATENT / VECTOR;
constexpr int lanes_of_vector(int vectors) {
  int lanes = 1;
  while (lanes * 2 <= SPLITS && vectors * lanes * 2 <= THREADS) lanes *= 2;
  return lanes;
}
constexpr int SPLIT_LANES = lanes_of_vector(ROWS * VECTORS);
constexpr int SPLITS_PER_LANE = divide_up(SPLITS, SPLIT_LANES);
constexpr int VECTORS_PER_THREAD = divide_up(ROWS * VECTORS * SPLIT_LANES, THREADS);

// The softmax over the splits of a row is computed by as many lanes as there are splits, or by 32.
constexpr int lanes_of_shares() {
  int lanes = 1;
  while (lanes < SPLITS && lanes < 32) lanes *= 2;
  return lanes;
}
constexpr int SHARE_LANES = lanes_of_shares();
constexpr int SPLITS_PER_SHARE_LANE = divide_up(SPLITS, SHARE_LANES);

struct Shared {
  float shares[ROWS][SPLITS];
  union {
    uint32x4 vectors[ROWS][VECTORS + 1];  // one more, so that lanes on neighbouring rows meet no bank twice
    uint16 columns[ROWS][(VECTORS + 1) * VECTOR];
  } attended;
  float values[ROWS][GROUP + 4];  // four more, so that lanes on neighbouring rows meet no bank twice
};

struct Rows {
  int first, count;
  int64 heads, head;
};

// Index of row `row` of the workgroup among all heads of all rows; rows past the end repeat the last one.
DEVICE int64 head_of_row(const Rows &rows, int row) {
  return int64(rows.first + row < rows.count ? rows.first + row : rows.count - 1) * rows.heads + rows.head;
}

struct WeightTile {
  Fragment fragments[FRAGMENTS];
  float scales[BLOCKS];
};

// 16 rows of the weight from row `first` on; their scales are those of one row of blocks.
DEVICE WeightTile load_weight(const uint8 *weight, const float *scales, int first) {
  WeightTile tile;
  const uint8 *rows[FRAGMENT_PARTS];
#pragma unroll
  for (int part = 0; part < FRAGMENT_PARTS; ++part) rows[part] = weight + int64(first + fragment_row(part)) * LATENT;
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) tile.fragments[f] = load_row_fragment(rows, f);
#pragma unroll
  for (int block = 0; block < BLOCKS; ++block) tile.scales[block] = scales[first / GROUP * BLOCKS + block];
  return tile;
}

// The vectors that this thread combines, and where they belong.
struct PartVectors {
  uint32x4 loads[VECTORS_PER_THREAD][SPLITS_PER_LANE];
};

DEVICE int split_lane() { return thread_id() % SPLIT_LANES; }
// Vectors past the last row's repeat those of the last row.
DEVICE int vector_index(int i) { return (thread_id() + i * THREADS) / SPLIT_LANES; }
DEVICE int row_of_vector(int i) { return vector_index(i) / VECTORS < ROWS ? vector_index(i) / VECTORS : ROWS - 1; }
// Whether this lane's split `j` exists; known when compiled but for the last.
DEVICE bool has_split(int j) { return (j + 1) * SPLIT_LANES <= SPLITS || split_lane() + j * SPLIT_LANES < SPLITS; }

DEVICE PartVectors load_parts(const uint16 *parts, const Rows &rows) {
  PartVectors vectors;
#pragma unroll
  for (int i = 0; i < VECTORS_PER_THREAD; ++i) {
    int64 head = head_of_row(rows, row_of_vector(i));
    const uint16 *source = parts + (head * SPLITS + split_lane()) * LATENT + vector_index(i) % VECTORS * VECTOR;
#pragma unroll
    for (int j = 0; j < SPLITS_PER_LANE; ++j) {
      vectors.loads[i][j] = 0;
      if (has_split(j)) vectors.loads[i][j] = *(const uint32x4 *)(source + j * (SPLIT_LANES * LATENT));
    }
  }
  return vectors;
}

// Log sums of the splits of the rows whose shares this thread computes; minus infinity past the last split.
struct LogSums {
  float logs[divide_up(ROWS * SHARE_LANES, THREADS)][SPLITS_PER_SHARE_LANE];
};

DEVICE int row_of_share(int i) { return (thread_id() + i * THREADS) / SHARE_LANES; }
DEVICE int split_of_share(int j) { return thread_id() % SHARE_LANES + j * SHARE_LANES; }

DEVICE LogSums load_log_sums(const float *log_sums, const Rows &rows) {
  LogSums loaded;
#pragma unroll
  for (int i = 0; i < divide_up(ROWS * SHARE_LANES, THREADS); ++i) {
    const float *of_row = log_sums + head_of_row(rows, row_of_share(i) < ROWS ? row_of_share(i) : ROWS - 1) * SPLITS;
#pragma unroll
    for (int j = 0; j < SPLITS_PER_SHARE_LANE; ++j)
      loaded.logs[i][j] = split_of_share(j) < SPLITS ? of_row[split_of_share(j)] : -__builtin_inff();
  }
  return loaded;
}

// Share of each split in its row's softmax; zeros for a row without tokens.
DEVICE void compute_shares(Shared &shared, const LogSums &log_sums) {
  constexpr float LOG2_E = 1.44269504f;
#pragma unroll
  for (int i = 0; i < divide_up(ROWS * SHARE_LANES, THREADS); ++i) {
    float powers[SPLITS_PER_SHARE_LANE], largest = -__builtin_inff(), total = 0;
#pragma unroll
    for (int j = 0; j < SPLITS_PER_SHARE_LANE; ++j) largest = Maximum::combine(log_sums.logs[i][j], largest);
    largest = reduce_lanes<Maximum, SHARE_LANES>(largest);
#pragma unroll
    for (int j = 0; j < SPLITS_PER_SHARE_LANE; ++j) {
      float log = log_sums.logs[i][j];
      powers[j] = log == -__builtin_inff() ? 0 : exponential2((log - largest) * LOG2_E);
      total += powers[j];
    }
    total = reduce_lanes<Sum, SHARE_LANES>(total);
#pragma unroll
    for (int j = 0; j < SPLITS_PER_SHARE_LANE; ++j)
      if (split_of_share(j) < SPLITS && row_of_share(i) < ROWS)
        shared.shares[row_of_share(i)][split_of_share(j)] = total == 0 ? 0 : powers[j] / total;
  }
}

DEVICE void combine(Shared &shared, const PartVectors &vectors) {
#pragma unroll
  for (int i = 0; i < VECTORS_PER_THREAD; ++i) {
    float sums[VECTOR] = {};
#pragma unroll
    for (int j = 0; j < SPLITS_PER_LANE; ++j) {
      float share = has_split(j) ? shared.shares[row_of_vector(i)][split_lane() + j * SPLIT_LANES] : 0;
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        float2 two = from_float16x2(vectors.loads[i][j][pair]);
        sums[2 * pair] += two[0] * share;
        sums[2 * pair + 1] += two[1] * share;
      }
    }
#pragma unroll
    for (int column = 0; column < VECTOR; ++column) sums[column] = reduce_lanes<Sum, SPLIT_LANES>(sums[column]);
    int row = vector_index(i) / VECTORS;
    if (split_lane() == 0 && row < ROWS)
      shared.attended.vectors[row][vector_index(i) % VECTORS] = {
          to_float16x2(sums[0], sums[1]), to_float16x2(sums[2], sums[3]), to_float16x2(sums[4], sums[5]),
          to_float16x2(sums[6], sums[7])};
  }
}

// shared.values: products of the attended rows with 16 weight rows, which are columns `first_dim` on.
DEVICE void multiply_weight(Shared &shared, const WeightTile &weight, int first_dim) {
  Accumulator sums, product;
#pragma unroll
  for (int f = 0; f < FRAGMENTS; ++f) {
    uint32x4 attended[ROW_PARTS][2];
#pragma unroll
    for (int part = 0; part < ROW_PARTS; ++part) {
      int row = fragment_row(part) < ROWS ? fragment_row(part) : ROWS - 1;
#pragma unroll
      for (int i = 0; i < 2; ++i)
        attended[part][i] = shared.attended.vectors[row][f * (FRAGMENT_COLUMNS / VECTOR) + fragment_tile() * 2 + i];
    }
#pragma unroll
    for (int word = 0; word < 4; ++word) {
      HalfFragment dims;
#pragma unroll
      for (int part = 0; part < FRAGMENT_PARTS; ++part)
        dims.part[part] = to_float16x4(weight.fragments[f].part[part][word]);
#pragma unroll
      for (int part = 0; part < ROW_PARTS; ++part) {
        uint32x4 eight = attended[part][word / 2];
        uint32x2 four = {eight[word % 2 * 2], eight[word % 2 * 2 + 1]};
        multiply_part_f16(dims, four, product.element + part * PART_COLUMNS);
      }
    }
    if (f % FRAGMENTS_PER_BLOCK < FRAGMENTS_PER_BLOCK - 1 && f + 1 < FRAGMENTS) continue;
#pragma unroll
    for (int c = 0; c < ROW_PARTS * PART_COLUMNS; ++c)
#pragma unroll
      for (int r = 0; r < ACCUMULATOR_ROWS; ++r) {
        sums.element[c][r] += product.element[c][r] * weight.scales[f / FRAGMENTS_PER_BLOCK];
        product.element[c][r] = 0;
      }
  }
#pragma unroll
  for (int c = 0; c < ROW_PARTS * PART_COLUMNS; ++c)
#pragma unroll
    for (int r = 0; r < ACCUMULATOR_ROWS; ++r)
      if (accumulator_column(c) < ROWS)
        shared.values[accumulator_column(c)][first_dim + accumulator_row(r)] = sums.element[c][r];
}

DEVICE void value_up_group_quant(EarlyWorkgroup workgroup, Shared &shared, const uint16 *parts, const float *log_sums,
                                 const uint8 *weight, const float *weight_scales, uint8 *values, float *scales,
                                 int count, int heads, int rows_per_head) {
  int group = workgroup.x, head = workgroup.y;
  Rows rows = {workgroup.z * ROWS, count, heads, head};
  int wave_dim = uniform_wave_id() * (DIM_TILES * TILE);
  WeightTile tiles[DIM_TILES];
  auto load_weights = [&]() INLINE {
#pragma unroll
    for (int tile = 0; tile < DIM_TILES; ++tile)
      tiles[tile] = load_weight(weight, weight_scales,
                                head * rows_per_head + NOPE + group * GROUP + wave_dim + tile * TILE);
    schedule_boundary();
  };
  if (workgroup.waits()) load_weights();
  workgroup.await_inputs();
  LogSums logs = load_log_sums(log_sums, rows);
  PartVectors vectors = load_parts(parts, rows);
  schedule_boundary();
  // Parts that are there are combined while the weight is still on its way.
  if (!workgroup.waits()) load_weights();
  compute_shares(shared, logs);
  barrier();
  combine(shared, vectors);
  barrier();
#pragma unroll
  for (int tile = 0; tile < DIM_TILES; ++tile) multiply_weight(shared, tiles[tile], wave_dim + tile * TILE);
  barrier();

  int row = thread_id() / GROUP_LANES, column = thread_id() % GROUP_LANES * COLUMNS_PER_LANE;
  float numbers[COLUMNS_PER_LANE];
#pragma unroll
  for (int i = 0; i < COLUMNS_PER_LANE; ++i)
    numbers[i] = round_to_bf16(shared.values[row < ROWS ? row : ROWS - 1][column + i]);
  bool stores = row < ROWS && rows.first + row < count;
  int values_per_head = rows_per_head - NOPE;
  int64 index = head_of_row(rows, row < ROWS ? row : ROWS - 1);
  int group_of_row = head * (values_per_head / GROUP) + group;
  quantize_group(numbers, values + index * values_per_head + group * GROUP + column,
                 scales + group_major_scale_offset(rows.first + row, group_of_row, count), stores);
}
