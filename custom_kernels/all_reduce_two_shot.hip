// As all_reduce.hip in two shots: every device is sent one slice by all others, adds it up, and sends them the sums. That is
// less by far where there are many ranks, but one way more. A thread sees to the same pieces of every slice.
#include "ranks.h"

constexpr int SLICE = PIECES / RANKS;
static_assert(PIECES % RANKS == 0, "slices are of one size");
constexpr int PASSES = divide_up(SLICE, THREADS * WORKGROUPS);

DEVICE void all_reduce(EarlyWorkgroup workgroup, const bf16 *partial, const int64 *mailboxes, bf16 *sum, int rank,
                       int turn) {
  auto ranks = Ranks<RANKS>::at(mailboxes, turn, rank);
  auto piece_of = [&](int pass) INLINE { return (pass * WORKGROUPS + workgroup.x) * THREADS + thread_id(); };
  uint32x4 own[PASSES];
  workgroup.await_inputs();
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass) {
    int piece = piece_of(pass);
    if (piece >= SLICE) break;
    uint32x4 slices[RANKS];
#pragma unroll
    for (int i = 0; i < RANKS; ++i) slices[i] = *piece_at(partial, ranks.following(i) * SLICE + piece);
    own[pass] = slices[0];
#pragma unroll
    for (int i = 1; i < RANKS; ++i) ranks.send(i, piece, slices[i]);
  }
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass) {
    int piece = piece_of(pass);
    if (piece >= SLICE) break;
    own[pass] = ranks.add_up(piece, own[pass]);
    ranks.send_to_all(SLICE + piece, own[pass]);
  }
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass) {
    int piece = piece_of(pass);
    if (piece >= SLICE) break;
    ranks.each_in_order(SLICE + piece, own[pass], [&](int slice, uint32x4 packed) INLINE {
      *piece_at(sum, slice * SLICE + piece) = packed;
    });
#pragma unroll
    for (int slice = 0; slice < RANKS; ++slice)
      if (slice != rank && !ranks.arriving[slice])
        *piece_at(sum, slice * SLICE + piece) = *piece_at(partial, slice * SLICE + piece);
  }
}
