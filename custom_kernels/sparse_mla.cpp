// Attention of up to 16 heads of one row over splits of its selected cache slots: each is every SPLITS-th tile of 64.
// The softmax is kept online over blocks of 16 slots. WIDTH (latent and rope) and VALUE_DIM (latent) are constants too.
#include "cpu.h"

constexpr int TILE_SLOTS = 64;
constexpr int SLOTS = 16;
constexpr int HEADS = 16;
constexpr int LANES = 16;
static_assert(WIDTH % LANES == 0);

static inline float dot(const float *a, const float *b) {
  float lanes[LANES];
  for (int i = 0; i < LANES; ++i) lanes[i] = 0;
  for (int d = 0; d < WIDTH; d += LANES)
    for (int i = 0; i < LANES; ++i) lanes[i] += a[d + i] * b[d + i];
  float sum = 0;
  for (int i = 0; i < LANES; ++i) sum += lanes[i];
  return sum;
}

struct Heads {
  int count;
  float queries[HEADS][WIDTH];
};

// One split of the row's `selected` slots; `values` and `log_sums` start at the first head's first split.
static void attend(const Heads &heads, const uint8 *cache, const int *selected, int64 topk, int64 split, float to_log2,
                   _Float16 *values, float *log_sums) {
  constexpr float LOG_2 = 0.693147181f;
  float sums[HEADS][VALUE_DIM], largest[HEADS], total[HEADS];
  for (int h = 0; h < heads.count; ++h) {
    for (int d = 0; d < VALUE_DIM; ++d) sums[h][d] = 0;
    largest[h] = -__builtin_inff();
    total[h] = 0;
  }
  for (int64 next = split * TILE_SLOTS; next < topk;) {
    float keys[SLOTS][WIDTH];
    int count = 0;
    while (next < topk && count < SLOTS) {
      if (selected[next] >= 0) decode_fp8(cache + slot_offset(selected[next], WIDTH), keys[count++], WIDTH);
      if (++next % TILE_SLOTS == 0) next += (SPLITS - 1) * TILE_SLOTS;
    }
    for (int h = 0; h < heads.count && count > 0; ++h) {
      float scores[SLOTS], highest = largest[h];
      for (int s = 0; s < count; ++s) {
        scores[s] = dot(heads.queries[h], keys[s]) * to_log2;
        highest = scores[s] > highest ? scores[s] : highest;
      }
      float keep = exp2_of_negative(largest[h] - highest);
      largest[h] = highest;
      total[h] *= keep;
      if (keep != 1.0f)
        for (int d = 0; d < VALUE_DIM; ++d) sums[h][d] *= keep;
      for (int s = 0; s < count; ++s) {
        float share = exp2_of_negative(scores[s] - highest);
        total[h] += share;
        for (int d = 0; d < VALUE_DIM; ++d) sums[h][d] += share * keys[s][d];
      }
    }
  }
  for (int h = 0; h < heads.count; ++h) {
    int64 index = h * SPLITS + split;
    float inverse = total[h] == 0 ? 0.0f : 1.0f / total[h];
    log_sums[index] = total[h] == 0 ? -__builtin_inff() : (largest[h] + log2_of(total[h])) * LOG_2;
    for (int d = 0; d < VALUE_DIM; ++d) values[index * VALUE_DIM + d] = _Float16(sums[h][d] * inverse);
  }
}

// A workgroup takes every `step`-th split.
extern "C" void sparse_mla(BUFFER(query), BUFFER(cache), BUFFER(slots), BUFFER(values), BUFFER(log_sums),
                           int64 all_heads, int64 topk, int64 scale_bits, int64 step, int64 head_group,
                           int64 first_split, int64 row) {
  int64 first = row * all_heads + head_group * HEADS, rest = all_heads - head_group * HEADS;
  Heads heads;
  heads.count = int(rest < HEADS ? rest : HEADS);
  for (int h = 0; h < heads.count; ++h)
    decode_fp8(POINTER(const uint8, query) + (first + h) * WIDTH, heads.queries[h], WIDTH);
  for (int64 split = first_split; split < SPLITS; split += step)
    attend(heads, POINTER(const uint8, cache), POINTER(const int, slots) + row * topk, topk, split,
           bits_to_float(uint32(scale_bits)) * 1.44269504f, POINTER(_Float16, values) + first * SPLITS * VALUE_DIM,
           POINTER(float, log_sums) + first * SPLITS);
}
