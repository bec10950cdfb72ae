// Device memory of the emulated device: host memory with a registry of the live and the freed buffers.
#ifndef PREDECODE_EMULATION_MEMORY_H
#define PREDECODE_EMULATION_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { kBufferAlignment = 256, kCacheLineBytes = 128 };

// One buffer of a MemoryView; the address range is [base, end).
struct BufferRange {
  uint64_t base, end;
  uint64_t *touched_lines;  // One bit per cache line, owned by the view.
};

// The live buffers at the start of a launch, sorted by address. Launches are checked against it without
// locks.
struct MemoryView {
  size_t count;
  struct BufferRange *ranges;
};

// Allocates `size` bytes aligned to 256, filled with 0xFF (NaN in every float format but FNUZ) if `poison`.
// `purpose` is a constant text used in messages. Returns NULL when the host has no memory left.
void *memory_allocate(size_t size, bool poison, const char *purpose);

// Frees a buffer by its first address; poisoned buffers stay in quarantine so that late accesses are
// recognised. Returns false if `pointer` is not the first address of a live buffer.
bool memory_free(void *pointer);

// Makes host memory that somebody else owns accessible to kernels, and takes it back.
bool memory_register(void *pointer, size_t size, const char *purpose);
bool memory_unregister(void *pointer);

// Whether kernels may access memory that other processes write to.
bool memory_is_shared(void);

// True if [pointer, pointer + size) lies in one live buffer.
bool memory_contains(const void *pointer, size_t size);

struct MemoryView *memory_view_create(void);
void memory_view_destroy(struct MemoryView *view);

// Writes where `address` lies relative to the nearest known buffer, live or freed.
void memory_describe(uint64_t address, char *text, size_t capacity);

uint64_t memory_bytes_in_use(void);
uint64_t memory_bytes_peak(void);

#endif
