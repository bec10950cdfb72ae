// Registry of the buffers that kernels may access.
#include "memory.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Redzone behind each buffer, so that the bytes just past its end never belong to a neighbour.
enum { kRedzoneBytes = 256, kPoisonByte = 0xFF };
static const size_t kQuarantineBytes = (size_t)256 << 20, kQuarantineBuffers = 256;

struct Buffer {
  uint64_t base;
  size_t size;
  void *block;  // What to give back to the host; NULL for memory that somebody else owns.
  uint64_t serial;
  const char *purpose;
  bool live, poison;
  struct Buffer *next_freed;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct Buffer **buffers;  // Sorted by base, freed ones in quarantine included.
static size_t count, capacity;
static struct Buffer *oldest_freed, *newest_freed;
static size_t quarantined_bytes, quarantined_count;
static uint64_t serial, in_use, peak;

// Index of the first buffer whose base is above `address`.
static size_t upper_bound(uint64_t address) {
  size_t low = 0, high = count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (buffers[middle]->base <= address) low = middle + 1;
    else high = middle;
  }
  return low;
}

static struct Buffer *find_containing(uint64_t address) {
  for (size_t i = upper_bound(address); i > 0; --i) {
    struct Buffer *buffer = buffers[i - 1];
    if (address < buffer->base + buffer->size) return buffer;
    if (buffer->block) return NULL;  // Owned blocks never overlap; only registered memory may nest.
  }
  return NULL;
}

static bool insert(struct Buffer *buffer) {
  if (count == capacity) {
    size_t wanted = capacity ? capacity * 2 : 64;
    struct Buffer **grown = realloc(buffers, wanted * sizeof *buffers);
    if (!grown) return false;
    buffers = grown;
    capacity = wanted;
  }
  size_t at = upper_bound(buffer->base);
  memmove(buffers + at + 1, buffers + at, (count - at) * sizeof *buffers);
  buffers[at] = buffer;
  ++count;
  buffer->serial = ++serial;
  in_use += buffer->size;
  if (in_use > peak) peak = in_use;
  return true;
}

static void erase(struct Buffer *buffer) {
  for (size_t i = upper_bound(buffer->base); i > 0; --i) {
    if (buffers[i - 1] != buffer) continue;
    memmove(buffers + i - 1, buffers + i, (count - i) * sizeof *buffers);
    --count;
    break;
  }
  free(buffer->block);
  free(buffer);
}

static struct Buffer *find_live_base(void *pointer) {
  uint64_t address = (uint64_t)(uintptr_t)pointer;
  for (size_t i = upper_bound(address); i > 0 && buffers[i - 1]->base == address; --i)
    if (buffers[i - 1]->live) return buffers[i - 1];
  return NULL;
}

void *memory_allocate(size_t size, bool poison, const char *purpose) {
  size_t rounded = (size + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment + kRedzoneBytes;
  if (rounded < size) return NULL;
  void *block = NULL;
  struct Buffer *buffer = malloc(sizeof *buffer);
  if (!buffer || posix_memalign(&block, kBufferAlignment, rounded)) {
    free(buffer);
    return NULL;
  }
  if (poison) memset(block, kPoisonByte, rounded);
  *buffer = (struct Buffer){(uint64_t)(uintptr_t)block, size, block, 0, purpose, true, poison, NULL};
  pthread_mutex_lock(&lock);
  bool ok = insert(buffer);
  pthread_mutex_unlock(&lock);
  if (ok) return block;
  free(block);
  free(buffer);
  return NULL;
}

bool memory_free(void *pointer) {
  pthread_mutex_lock(&lock);
  struct Buffer *buffer = find_live_base(pointer);
  bool ok = buffer && buffer->block;
  if (ok) {
    buffer->live = false;
    in_use -= buffer->size;
    if (!buffer->poison) {
      erase(buffer);
    } else {
      memset(buffer->block, kPoisonByte, buffer->size);
      if (newest_freed) newest_freed->next_freed = buffer;
      else oldest_freed = buffer;
      newest_freed = buffer;
      quarantined_bytes += buffer->size;
      ++quarantined_count;
      while ((quarantined_bytes > kQuarantineBytes || quarantined_count > kQuarantineBuffers) &&
             oldest_freed != newest_freed) {
        struct Buffer *oldest = oldest_freed;
        oldest_freed = oldest->next_freed;
        quarantined_bytes -= oldest->size;
        --quarantined_count;
        erase(oldest);
      }
    }
  }
  pthread_mutex_unlock(&lock);
  return ok;
}

bool memory_register(void *pointer, size_t size, const char *purpose) {
  struct Buffer *buffer = malloc(sizeof *buffer);
  if (!buffer) return false;
  *buffer = (struct Buffer){(uint64_t)(uintptr_t)pointer, size, NULL, 0, purpose, true, false, NULL};
  pthread_mutex_lock(&lock);
  bool ok = insert(buffer);
  pthread_mutex_unlock(&lock);
  if (!ok) free(buffer);
  return ok;
}

bool memory_unregister(void *pointer) {
  pthread_mutex_lock(&lock);
  struct Buffer *buffer = find_live_base(pointer);
  bool ok = buffer && !buffer->block;
  if (ok) {
    in_use -= buffer->size;
    erase(buffer);
  }
  pthread_mutex_unlock(&lock);
  return ok;
}

bool memory_contains(const void *pointer, size_t size) {
  uint64_t address = (uint64_t)(uintptr_t)pointer;
  pthread_mutex_lock(&lock);
  struct Buffer *buffer = find_containing(address);
  bool ok = buffer && buffer->live && size <= buffer->base + buffer->size - address;
  pthread_mutex_unlock(&lock);
  return ok;
}

struct MemoryView *memory_view_create(void) {
  struct MemoryView *view = calloc(1, sizeof *view);
  if (!view) return NULL;
  pthread_mutex_lock(&lock);
  view->ranges = calloc(count ? count : 1, sizeof *view->ranges);
  for (size_t i = 0; view->ranges && i < count; ++i) {
    if (!buffers[i]->live) continue;
    uint64_t base = buffers[i]->base, end = base + buffers[i]->size;
    struct BufferRange *last = view->count ? &view->ranges[view->count - 1] : NULL;
    if (last && base < last->end) {  // Registered host memory may overlap: one range for both.
      if (end > last->end) last->end = end;
    } else {
      view->ranges[view->count++] = (struct BufferRange){base, end, NULL};
    }
  }
  pthread_mutex_unlock(&lock);
  if (view->ranges) return view;
  free(view);
  return NULL;
}

void memory_view_destroy(struct MemoryView *view) {
  if (!view) return;
  for (size_t i = 0; i < view->count; ++i) free(view->ranges[i].touched_lines);
  free(view->ranges);
  free(view);
}

void memory_describe(uint64_t address, char *text, size_t text_capacity) {
  pthread_mutex_lock(&lock);
  size_t above = upper_bound(address);
  struct Buffer *below = above > 0 ? buffers[above - 1] : NULL;
  struct Buffer *next = above < count ? buffers[above] : NULL;
  uint64_t past = below ? address - below->base : UINT64_MAX;
  uint64_t before = next ? next->base - address : UINT64_MAX;
  struct Buffer *nearest = below;
  if (below && past >= below->size && next && before < past - below->size) nearest = next;
  if (!nearest) nearest = next;
  if (!nearest) {
    snprintf(text, text_capacity, "there are no buffers");
  } else {
    const char *state = nearest->live ? "live" : "freed";
    char place[64];
    if (nearest == next) snprintf(place, sizeof place, "%" PRIu64 " bytes before", before);
    else if (past < nearest->size) snprintf(place, sizeof place, "at byte %" PRIu64 " of", past);
    else snprintf(place, sizeof place, "%" PRIu64 " bytes past the end of", past - nearest->size);
    snprintf(text, text_capacity, "%s %s buffer #%" PRIu64 " (%s, %zu bytes at 0x%" PRIx64 ")", place, state,
             nearest->serial, nearest->purpose, nearest->size, nearest->base);
  }
  pthread_mutex_unlock(&lock);
}

uint64_t memory_bytes_in_use(void) {
  pthread_mutex_lock(&lock);
  uint64_t value = in_use;
  pthread_mutex_unlock(&lock);
  return value;
}

uint64_t memory_bytes_peak(void) {
  pthread_mutex_lock(&lock);
  uint64_t value = peak;
  pthread_mutex_unlock(&lock);
  return value;
}
