// Strict mode's check of global accesses, and the messages of all faults.
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "launch.h"

void launch_fail(struct Launch *launch, const char *format, ...) {
  if (!atomic_exchange(&launch->explained, true)) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(launch->fault, sizeof launch->fault, format, arguments);
    va_end(arguments);
  }
  atomic_store(&launch->faulted, true);
}

static struct BufferRange *find_range(const struct MemoryView *view, uint64_t address) {
  size_t low = 0, high = view->count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (view->ranges[middle].base <= address) low = middle + 1;
    else high = middle;
  }
  return low ? &view->ranges[low - 1] : NULL;
}

static _Atomic uint64_t *touched_lines(struct BufferRange *range) {
  _Atomic(uint64_t *) *slot = (_Atomic(uint64_t *) *)&range->touched_lines;
  uint64_t *lines = atomic_load_explicit(slot, memory_order_acquire);
  if (lines) return (_Atomic uint64_t *)lines;
  uint64_t *fresh = calloc((range->end - range->base) / kCacheLineBytes / 64 + 2, sizeof *fresh);
  if (atomic_compare_exchange_strong(slot, &lines, fresh)) return (_Atomic uint64_t *)fresh;
  free(fresh);  // Another thread was first.
  return (_Atomic uint64_t *)lines;
}

static void touch(struct BufferRange *range, uint64_t address, uint32_t bytes) {
  _Atomic uint64_t *lines = touched_lines(range);
  if (!lines) return;
  uint64_t origin = range->base / kCacheLineBytes;
  uint64_t first = address / kCacheLineBytes - origin,
           last = (address + bytes - 1) / kCacheLineBytes - origin;
  for (uint64_t line = first; line <= last; ++line) {
    uint64_t bit = UINT64_C(1) << (line & 63);
    if (!(atomic_load_explicit(&lines[line / 64], memory_order_relaxed) & bit))
      atomic_fetch_or_explicit(&lines[line / 64], bit, memory_order_relaxed);
  }
}

uint64_t count_touched_lines(const struct MemoryView *view) {
  uint64_t count = 0;
  for (size_t i = 0; i < view->count; ++i) {
    const struct BufferRange *range = &view->ranges[i];
    if (!range->touched_lines) continue;
    size_t words = (range->end - range->base) / kCacheLineBytes / 64 + 2;
    for (size_t word = 0; word < words; ++word)
      count += (uint64_t)__builtin_popcountll(range->touched_lines[word]);
  }
  return count;
}

// "kernel K, workgroup (x, y, z), lane l, `text` at code+0x10": where a fault happened.
static void describe_place(const struct GroupContext *context, const struct Wave *wave, int lane,
                           uint64_t code_offset, char *text, size_t capacity) {
  const struct Kernel *kernel = context->launch->kernel;
  const uint32_t *id = context->group.id;
  char who[48] = "";
  if (wave && lane >= 0) snprintf(who, sizeof who, ", wave %u, lane %d", wave->index_in_workgroup, lane);
  else if (wave) snprintf(who, sizeof who, ", wave %u", wave->index_in_workgroup);
  else if (lane >= 0) snprintf(who, sizeof who, ", lane %d", lane);
  const char *assembly = kernel->text ? kernel->text(code_offset) : NULL;
  snprintf(text, capacity, "kernel %s, workgroup (%u, %u, %u)%s, `%s` at code+0x%" PRIx64, kernel->name,
           id[0], id[1], id[2], who, assembly ? assembly : "?", code_offset);
}

int check_global_access(struct Workgroup *group, uint64_t address, uint32_t bytes, int is_store, int lane,
                        uint64_t code_offset) {
  struct GroupContext *context = group->user;
  struct BufferRange *range = context->last_range;
  if (!range || address < range->base || address >= range->end) {
    range = find_range(context->launch->view, address);
    if (range) context->last_range = range;
  }
  if (range && address >= range->base && address <= range->end && bytes <= range->end - address) {
    touch(range, address, bytes);
    return 0;
  }
  char place[512], nearest[256];
  describe_place(context, NULL, lane, code_offset, place, sizeof place);
  memory_describe(address, nearest, sizeof nearest);
  launch_fail(context->launch,
              "%s: %s of %u bytes at 0x%" PRIx64 " is not inside a live buffer: the address is %s", place,
              is_store ? "store" : "load", bytes, address, nearest);
  return 1;
}

void report_wave_fault(struct Workgroup *group, struct Wave *wave, const char *message, int lane,
                       uint64_t code_offset) {
  struct GroupContext *context = group->user;
  char place[512];
  describe_place(context, wave, lane, code_offset, place, sizeof place);
  launch_fail(context->launch, "%s: %s", place, message);
}

// `context` is one of the workgroups that wait.
void report_stall(const struct GroupContext *context) {
  struct Launch *launch = context->launch;
  const struct Wave *wave = &context->waves[0];
  for (uint32_t i = 0; i < launch->wave_count; ++i)
    if (context->status[i] == WAVE_YIELDED) wave = &context->waves[i];
  char place[512];
  describe_place(context, wave, -1, wave->resume - 1, place, sizeof place);
  unsigned long long started = atomic_load(&launch->next_workgroup), resident = atomic_load(&launch->resident_groups);
  launch_fail(launch,
              "%s: waits for ever: no running wave ends, reaches a barrier or changes memory any more "
              "(%llu workgroups are running, %llu more cannot start before one ends)",
              place, resident, (unsigned long long)launch->workgroup_count - started);
}
