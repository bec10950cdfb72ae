// Attention of up to 16 heads of one row over one split of its selected cache slots: every SPLITS-th tile of 64. The
// softmax is kept online over blocks of 16 slots. WIDTH (latent and rope) and VALUE_DIM (latent) are constants too.
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

extern "C" void sparse_mla(BUFFER(query), BUFFER(cache), BUFFER(slots), BUFFER(values), BUFFER(log_sums), int64 heads,
                           int64 topk, int64 scale_bits, int64 head_group, int64 split, int64 row) {
  const float to_log2 = bits_to_float(uint32(scale_bits)) * 1.44269504f;
  int64 first_head = head_group * HEADS;
  int group = int(heads - first_head < HEADS ? heads - first_head : HEADS);
  const int *selected = POINTER(const int, slots) + row * topk;
  float queries[HEADS][WIDTH], sums[HEADS][VALUE_DIM], largest[HEADS], total[HEADS];
  for (int h = 0; h < group; ++h) {
    decode_fp8(POINTER(const uint8, query) + (row * heads + first_head + h) * WIDTH, queries[h], WIDTH);
    for (int d = 0; d < VALUE_DIM; ++d) sums[h][d] = 0;
    largest[h] = -__builtin_inff();
    total[h] = 0;
  }
  for (int64 next = split * TILE_SLOTS; next < topk;) {
    float keys[SLOTS][WIDTH];
    int count = 0;
    while (next < topk && count < SLOTS) {
      if (selected[next] >= 0)
        decode_fp8(POINTER(const uint8, cache) + slot_offset(selected[next], WIDTH), keys[count++], WIDTH);
      if (++next % TILE_SLOTS == 0) next += (SPLITS - 1) * TILE_SLOTS;
    }
    for (int h = 0; h < group && count > 0; ++h) {
      float scores[SLOTS], highest = largest[h];
      for (int s = 0; s < count; ++s) {
        scores[s] = dot(queries[h], keys[s]) * to_log2;
        highest = scores[s] > highest ? scores[s] : highest;
      }
      float keep = exp2_of_negative(largest[h] - highest);
      largest[h] = highest;
      total[h] *= keep;
      for (int d = 0; d < VALUE_DIM; ++d) sums[h][d] *= keep;
      for (int s = 0; s < count; ++s) {
        float share = exp2_of_negative(scores[s] - highest);
        total[h] += share;
        for (int d = 0; d < VALUE_DIM; ++d) sums[h][d] += share * keys[s][d];
      }
    }
  }
  constexpr float LOG_2 = 0.693147181f;
  for (int h = 0; h < group; ++h) {
    int64 index = (row * heads + first_head + h) * SPLITS + split;
    float inverse = total[h] > 0 || total[h] != total[h] ? 1.0f / total[h] : 0.0f;
    POINTER(float, log_sums)[index] = inverse == 0 ? -__builtin_inff() : (largest[h] + log2_of(total[h])) * LOG_2;
    for (int d = 0; d < VALUE_DIM; ++d) POINTER(_Float16, values)[index * VALUE_DIM + d] = _Float16(sums[h][d] * inverse);
  }
}
