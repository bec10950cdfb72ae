// As all_reduce.hip in two shots: every device is sent one slice by all others, adds it up, and sends them the sums. That is
// less by far where there are many ranks, but one way more. A thread sees to the same pieces of every slice.
#include "ranks.h"

constexpr int SLICE = PIECES / RANKS;
static_assert(PIECES % RANKS == 0, "slices are of one size");
constexpr int PASSES = divide_up(SLICE, THREADS * WORKGROUPS);

DEVICE void all_reduce(Workgroup workgroup, const bf16 *partial, const int64 *mailboxes, bf16 *sum, int rank, int turn) {
  auto ranks = Ranks<RANKS>::at(mailboxes, turn, rank);
  auto piece_of = [&](int pass) INLINE { return (pass * WORKGROUPS + workgroup.x) * THREADS + thread_id(); };
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass) {
    int piece = piece_of(pass);
    if (piece >= SLICE) break;
    ranks.each_other([&](int slice) INLINE { ranks.send(slice, piece, *piece_at(partial, slice * SLICE + piece)); });
  }
  uint32x4 added[PASSES];
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass) {
    int piece = piece_of(pass);
    if (piece >= SLICE) break;
    added[pass] = ranks.add_up(piece, *piece_at(partial, rank * SLICE + piece));
    ranks.each_other([&](int other) INLINE { ranks.send(other, SLICE + piece, added[pass]); });
  }
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass) {
    int piece = piece_of(pass);
    if (piece >= SLICE) break;
    ranks.each_in_order(SLICE + piece, added[pass], [&](int slice, uint32x4 packed) INLINE {
      *piece_at(sum, slice * SLICE + piece) = packed;
    });
    for (int slice = 0; slice < RANKS; ++slice)
      if (slice != rank && !ranks.takes_part(slice))
        *piece_at(sum, slice * SLICE + piece) = *piece_at(partial, slice * SLICE + piece);
  }
}
