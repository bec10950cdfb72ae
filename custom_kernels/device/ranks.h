// How tensor-parallel ranks send each other what they have computed: a rank posts it to the others' memory, where they take
// it, in pieces of eight bf16. The host tells where that is (pipelines/mailbox_table.py).
#pragma once

#include "mailbox.h"

DEVICE uint32x4 *piece_at(const void *values, int piece) { return (uint32x4 *)values + piece; }

// As one of COUNT ranks sees them. Those without mailboxes take no part.
template <int COUNT> struct Ranks {
  static constexpr int UNDER_WAY = 4;  // Loads of a thread at a time; all would take too many registers.
  int own;
  // Mailboxes of the ranks that follow this one, in a ring, and of every rank: in registers, since they would be loaded
  // again after every access to one.
  void *sent[COUNT], *arriving[COUNT];

  DEVICE static Ranks at(const int64 *mailboxes, int turn, int own) {
    Ranks ranks{own};
    const int64 *sent = mailboxes + turn * 2 * COUNT;
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      ranks.sent[i] = (void *)sent[(own + i) % COUNT];
      ranks.arriving[i] = (void *)sent[COUNT + i];
    }
    return ranks;
  }
  // The rank `distance` behind this one. Each sends to that at distance 1 first, so that none gets everything at once.
  MEMBER int following(int distance) const { return (own + distance) % COUNT; }
  MEMBER void send(int distance, int piece, uint32x4 packed) const {
    if (sent[distance]) post_bf16x8<Scope::ALL_DEVICES>(piece_at(sent[distance], piece), packed);
  }
  MEMBER void send_to_all(int piece, uint32x4 packed) const {
#pragma unroll
    for (int i = 1; i < COUNT; ++i) send(i, piece, packed);
  }
  // Calls `body` with every rank that takes part, in order, and with what it has at `piece`, when that is there; of this
  // one, `packed`.
  template <typename Body> MEMBER void each_in_order(int piece, uint32x4 packed, Body body) const {
#pragma unroll
    for (int first = 0; first < COUNT; first += UNDER_WAY) {
      uint32x4 words[UNDER_WAY];
#pragma unroll
      for (int i = 0; i < UNDER_WAY && first + i < COUNT; ++i)
        if (first + i != own && arriving[first + i])
          words[i] = load_relaxed<Scope::ALL_DEVICES>(piece_at(arriving[first + i], piece));
#pragma unroll
      for (int i = 0; i < UNDER_WAY && first + i < COUNT; ++i) {
        int rank = first + i;
        if (rank == own) body(rank, packed);
        else if (arriving[rank])
          body(rank, take_bf16x8<Scope::ALL_DEVICES>(piece_at(arriving[rank], piece), words[i]));
      }
    }
  }
  // The sum of what all have of `piece`, of this rank `packed`: in the order of the ranks and rounded once, so that all have
  // the same.
  MEMBER uint32x4 add_up(int piece, uint32x4 packed) const {
    float total[8] = {-0.0f, -0.0f, -0.0f, -0.0f, -0.0f, -0.0f, -0.0f, -0.0f};
    each_in_order(piece, packed, [&](int, uint32x4 of_rank) INLINE {
      float values[8];
      unpack_bf16x8(of_rank, values);
#pragma unroll
      for (int i = 0; i < 8; ++i) total[i] += values[i];
    });
    return pack_bf16x8(total);
  }
};
