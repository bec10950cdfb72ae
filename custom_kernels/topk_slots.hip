// Cache slots of each row's largest logits in ascending position: one workgroup per row.
#include "layouts.h"
#include "radix_select.h"

DEVICE void select_row_slots(SelectShared &shared, const float *logits, int length, const int *pages, int *slots,
                             int topk) {
  auto slot_of = [=](int position) {
    return pages[position / PAGE_TOKENS] * PAGE_TOKENS + position % PAGE_TOKENS;
  };
  if (length <= topk) {
    for (int rank = thread_id(); rank < topk; rank += SELECT_THREADS)
      slots[rank] = rank < length ? slot_of(rank) : -1;
    return;
  }
  Selection selection = select_largest(logits, length, topk, shared);
  visit_selected(logits, length, topk, selection, shared,
                 [=](int position, int rank) { slots[rank] = slot_of(position); });
}

DEVICE void topk_slots(Workgroup workgroup, SelectShared &shared, const float *logits, const int *lengths, const int *block_table,
                       int *slots, int width, int topk) {
  int row = workgroup.x;
  int length = lengths[row] < width ? lengths[row] : width;
  select_row_slots(shared, logits + row_major_offset(row, 0, width), length,
                   block_table + row_major_offset(row, 0, width / PAGE_TOKENS),
                   slots + row_major_offset(row, 0, topk), topk);
}
