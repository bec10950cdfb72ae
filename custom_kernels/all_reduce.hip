// Sums over RANKS devices in one shot: every device sends all that it has to all others, and adds up what arrives. RANKS,
// PIECES (of eight elements), THREADS and WORKGROUPS are compile-time constants.
#include "ranks.h"

constexpr int PASSES = divide_up(PIECES, THREADS * WORKGROUPS);

DEVICE void all_reduce(EarlyWorkgroup workgroup, bf16 *partial, const int64 *mailboxes, bf16 *sum, int rank, int turn) {
  auto ranks = Ranks<RANKS>::at(mailboxes, turn, rank);
  auto piece_of = [&](int pass) INLINE { return (pass * WORKGROUPS + workgroup.x) * THREADS + thread_id(); };
  uint32x4 own[PASSES];
  workgroup.await_inputs();
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass) {
    if (piece_of(pass) >= PIECES) break;
    uint32x4 *place = piece_at(partial, piece_of(pass));
    own[pass] = workgroup.takes() ? take_bf16x8<Scope::ONE_DEVICE>(place, load_relaxed(place)) : *place;
  }
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass)
    if (piece_of(pass) < PIECES) ranks.send_to_all(piece_of(pass), own[pass]);
#pragma unroll
  for (int pass = 0; pass < PASSES; ++pass)
    if (piece_of(pass) < PIECES) *piece_at(sum, piece_of(pass)) = ranks.add_up(piece_of(pass), own[pass]);
}
