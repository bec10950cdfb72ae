// How tensor-parallel ranks send each other what they have computed: a rank posts it to the others' memory, where they take
// it, in pieces of eight bf16. The host tells where that is (pipelines/mailbox_table.py).
#pragma once

#include "mailbox.h"

DEVICE uint32x4 *piece_at(const bf16 *values, int piece) { return (uint32x4 *)(values + int64(piece) * 8); }

// As one of COUNT ranks sees them. Those without mailboxes take no part.
template <int COUNT> struct Ranks {
  static constexpr int UNDER_WAY = 4;  // Loads of a thread at a time; all would take too many registers.
  const int64 *sent, *arriving;  // Addresses of mailboxes, of each rank.
  int own;

  static DEVICE Ranks at(const int64 *mailboxes, int turn, int own) {
    const int64 *sent = mailboxes + turn * 2 * COUNT;
    return {sent, sent + COUNT, own};
  }
  MEMBER bool takes_part(int rank) const { return arriving[rank] != 0; }

  // Calls `body` with the others. Every rank begins with another, so that none is sent everything at once.
  template <typename Body> MEMBER void each_other(Body body) const {
#pragma unroll
    for (int i = 1; i < COUNT; ++i) {
      int other = (own + i) % COUNT;
      if (takes_part(other)) body(other);
    }
  }
  MEMBER void send(int other, int piece, uint32x4 packed) const {
    post_bf16x8<Scope::ALL_DEVICES>((bf16 *)piece_at((bf16 *)sent[other], piece), packed);
  }
  // What lies in the mailbox of `rank`, if it is another one that takes part, and has perhaps not arrived yet.
  MEMBER uint32x4 look(int rank, int piece) const {
    if (rank == own || !takes_part(rank)) return uint32x4{};
    return load_relaxed<Scope::ALL_DEVICES>(piece_at((bf16 *)arriving[rank], piece));
  }
  // Waits for it; `words` are what has been seen there.
  MEMBER uint32x4 take(int rank, int piece, uint32x4 words) const {
    return take_bf16x8<Scope::ALL_DEVICES>((bf16 *)piece_at((bf16 *)arriving[rank], piece), words);
  }
  // Calls `body` with every rank in order and what it has at `piece`, when that is there; of this one, with `packed`.
  template <typename Body> MEMBER void each_in_order(int piece, uint32x4 packed, Body body) const {
#pragma unroll
    for (int first = 0; first < COUNT; first += UNDER_WAY) {
      uint32x4 words[UNDER_WAY];
#pragma unroll
      for (int i = 0; i < UNDER_WAY; ++i)
        if (first + i < COUNT) words[i] = look(first + i, piece);
#pragma unroll
      for (int i = 0; i < UNDER_WAY; ++i) {
        int rank = first + i;
        if (rank == own) body(rank, packed);
        else if (rank < COUNT && takes_part(rank)) body(rank, take(rank, piece, words[i]));
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
