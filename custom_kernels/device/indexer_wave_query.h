// How a wave gets a tile of a row's heads: from memory if another op has made the query, else the wave makes them.
#pragma once

#include "indexer_query.h"
#include "wave.h"

#if defined(__AMDGCN__)
// Workgroup memory of a wave that makes a tile of heads itself.
template <typename Query> struct TilePlace {
  alignas(16) uint8 codes[TILE][INDEXER_HEAD_DIM];
  float weights[TILE];
};
template <> struct TilePlace<PreparedQuery> {};

template <typename Query, int WAVES> struct TilePlaces {
  TilePlace<Query> of_waves[WAVES];

  MEMBER TilePlace<Query> &own() { return of_waves[uniform_wave_id()]; }
};
template <int WAVES> struct TilePlaces<PreparedQuery, WAVES> : TilePlace<PreparedQuery> {
  MEMBER TilePlace<PreparedQuery> &own() { return *this; }
};

// A tile of heads in memory: FP8 [16, 128] and their weights.
struct TileHeads {
  const uint8 *codes;
  const float *weights;
};

// Tile `tile` of the `tiles` of row `row`. All lanes of the wave must call, and have read the tile before.
DEVICE TileHeads heads_of_tile(const PreparedQuery &in, int row, int tile, int tiles, TilePlace<PreparedQuery> &place) {
  int64 head = (int64(row) * tiles + tile) * TILE;
  return {in.codes + row_major_offset(head, 0, INDEXER_HEAD_DIM), in.weights + head};
}

template <bool HALVES>
DEVICE TileHeads heads_of_tile(const RawQuery<HALVES> &in, int row, int tile, int tiles,
                               TilePlace<RawQuery<HALVES>> &place) {
  constexpr int HEADS_AT_A_TIME = WAVE_SIZE / HEAD_LANES;
  int64 first = (int64(row) * tiles + tile) * TILE;
  int column = column_of(lane_id());
  auto rope = load_query_rope<HALVES>(in.rope_table, in.positions[row], column);
  wave_barrier();  // the place may still be read
#pragma unroll
  for (int turn = 0; turn < TILE / HEADS_AT_A_TIME; ++turn) {
    int head = turn * HEADS_AT_A_TIME + head_of(lane_id());
    float values[8];
    uint32x2 codes;
    load_bf16x8(in.q + row_major_offset(first + head, column, INDEXER_HEAD_DIM), values);
    float gate = in.gates[first + head], scale = prepare_head(values, column, rope, codes);
    *(uint32x2 *)&place.codes[head][column] = codes;
    if (column == 0) place.weights[head] = weight_of_head(gate, in.gate_scale, scale);
  }
  wave_barrier();
  return {&place.codes[0][0], place.weights};
}
#endif
