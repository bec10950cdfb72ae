// HIP memory calls. Every transfer happens at once: the emulated device has no time of its own.
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "memory.h"

hipError_t memory_require(const char *call, const char *role, const void *pointer, size_t size) {
  if (!device_current()->strict || !size || memory_contains(pointer, size)) return hipSuccess;
  char place[256];
  memory_describe((uint64_t)(uintptr_t)pointer, place, sizeof place);
  return fault_set(hipErrorIllegalAddress, "%s: %zu bytes of %s at %p are not in one live device buffer: %s",
                   call, size, role, pointer, place);
}

static hipError_t allocate(void **pointer, size_t size, const char *purpose) {
  *pointer = memory_allocate(size, device_current()->strict, purpose);
  return *pointer ? hipSuccess : hipErrorOutOfMemory;
}

static hipError_t release(const char *call, void *pointer) {
  if (!pointer || memory_free(pointer)) return hipSuccess;
  char place[256];
  memory_describe((uint64_t)(uintptr_t)pointer, place, sizeof place);
  return fault_set(hipErrorInvalidDevicePointer, "%s: %p is not the start of a live buffer: it is %s", call,
                   pointer, place);
}

HIP_API hipError_t hipMalloc(void **pointer, size_t size) { return allocate(pointer, size, "hipMalloc"); }

HIP_API hipError_t hipMallocManaged(void **pointer, size_t size, unsigned flags) {
  (void)flags;
  return allocate(pointer, size, "hipMallocManaged");
}

HIP_API hipError_t hipMallocAsync(void **pointer, size_t size, hipStream_t stream) {
  (void)stream;
  return allocate(pointer, size, "hipMallocAsync");
}

HIP_API hipError_t hipMallocFromPoolAsync(void **pointer, size_t size, hipMemPool_t pool,
                                          hipStream_t stream) {
  (void)pool, (void)stream;
  return allocate(pointer, size, "hipMallocFromPoolAsync");
}

HIP_API hipError_t hipHostMalloc(void **pointer, size_t size, unsigned flags) {
  (void)flags;
  return allocate(pointer, size, "hipHostMalloc");
}

HIP_API hipError_t hipFree(void *pointer) {
  stream_wait_host_functions();
  return release("hipFree", pointer);
}

HIP_API hipError_t hipFreeAsync(void *pointer, hipStream_t stream) {
  (void)stream;
  stream_wait_host_functions();
  return release("hipFreeAsync", pointer);
}

HIP_API hipError_t hipHostFree(void *pointer) { return release("hipHostFree", pointer); }

HIP_API hipError_t hipHostGetDevicePointer(void **device_pointer, void *host_pointer, unsigned flags) {
  (void)flags;
  *device_pointer = host_pointer;
  return hipSuccess;
}

HIP_API hipError_t hipHostRegister(void *pointer, size_t size, unsigned flags) {
  (void)flags;
  return memory_register(pointer, size, "registered host memory") ? hipSuccess : hipErrorOutOfMemory;
}

static atomic_bool is_shared;

// Makes memory that other processes write to accessible to kernels.
HIP_API bool emulator_share_memory(void *pointer, size_t size) {
  atomic_store(&is_shared, true);
  return memory_register(pointer, size, "memory shared with other processes");
}

bool memory_is_shared(void) { return atomic_load(&is_shared); }

HIP_API hipError_t hipHostUnregister(void *pointer) {
  return memory_unregister(pointer) ? hipSuccess : hipErrorHostMemoryNotRegistered;
}

HIP_API hipError_t hipMemPrefetchAsync(const void *pointer, size_t size, int device, hipStream_t stream) {
  (void)pointer, (void)size, (void)device, (void)stream;
  return hipSuccess;
}

// ---- Transfers ----

static hipError_t copy(const char *call, void *target, const void *source, size_t size, hipMemcpyKind kind) {
  stream_wait_host_functions();
  hipError_t error = hipSuccess;
  if (kind == hipMemcpyHostToDevice || kind == hipMemcpyDeviceToDevice)
    error = memory_require(call, "target", target, size);
  if (!error && (kind == hipMemcpyDeviceToHost || kind == hipMemcpyDeviceToDevice))
    error = memory_require(call, "source", source, size);
  if (!error) memmove(target, source, size);
  return error;
}

HIP_API hipError_t hipMemcpy(void *target, const void *source, size_t size, hipMemcpyKind kind) {
  return copy("hipMemcpy", target, source, size, kind);
}

HIP_API hipError_t hipMemcpyAsync(void *target, const void *source, size_t size, hipMemcpyKind kind,
                                  hipStream_t stream) {
  (void)stream;
  return copy("hipMemcpyAsync", target, source, size, kind);
}

HIP_API hipError_t hipMemcpyHtoDAsync(void *target, void *source, size_t size, hipStream_t stream) {
  (void)stream;
  return copy("hipMemcpyHtoDAsync", target, source, size, hipMemcpyHostToDevice);
}

static hipError_t fill(const char *call, void *target, uint32_t value, size_t element_size, size_t count) {
  stream_wait_host_functions();
  hipError_t error = memory_require(call, "target", target, count * element_size);
  if (error) return error;
  if (element_size == 1) memset(target, (int)(value & 0xFF), count);
  else if (element_size == 2)
    for (size_t i = 0; i < count; ++i) ((uint16_t *)target)[i] = (uint16_t)value;
  else
    for (size_t i = 0; i < count; ++i) ((uint32_t *)target)[i] = value;
  return hipSuccess;
}

HIP_API hipError_t hipMemset(void *target, int value, size_t size) {
  return fill("hipMemset", target, (uint32_t)value, 1, size);
}

HIP_API hipError_t hipMemsetAsync(void *target, int value, size_t size, hipStream_t stream) {
  (void)stream;
  return fill("hipMemsetAsync", target, (uint32_t)value, 1, size);
}

HIP_API hipError_t hipMemsetD8Async(void *target, unsigned char value, size_t count, hipStream_t stream) {
  (void)stream;
  return fill("hipMemsetD8Async", target, value, 1, count);
}

HIP_API hipError_t hipMemsetD16Async(void *target, unsigned short value, size_t count, hipStream_t stream) {
  (void)stream;
  return fill("hipMemsetD16Async", target, value, 2, count);
}

HIP_API hipError_t hipMemsetD32Async(void *target, int value, size_t count, hipStream_t stream) {
  (void)stream;
  return fill("hipMemsetD32Async", target, (uint32_t)value, 4, count);
}

// ---- Pools: a name for the one heap ----

struct Pool {
  uint64_t release_threshold;
};

enum {
  hipMemPoolAttrReleaseThreshold = 4,
  hipMemPoolAttrReservedMemCurrent,
  hipMemPoolAttrReservedMemHigh,
  hipMemPoolAttrUsedMemCurrent,
  hipMemPoolAttrUsedMemHigh,
};

HIP_API hipError_t hipMemPoolCreate(hipMemPool_t *pool, const void *properties) {
  (void)properties;
  *pool = calloc(1, sizeof **pool);
  return *pool ? hipSuccess : hipErrorOutOfMemory;
}

HIP_API hipError_t hipMemPoolDestroy(hipMemPool_t pool) {
  free(pool);
  return hipSuccess;
}

HIP_API hipError_t hipMemPoolGetAttribute(hipMemPool_t pool, int attribute, void *value) {
  uint64_t *number = value;
  switch (attribute) {
    case hipMemPoolAttrReleaseThreshold: *number = pool->release_threshold; return hipSuccess;
    case hipMemPoolAttrReservedMemCurrent:
    case hipMemPoolAttrUsedMemCurrent: *number = memory_bytes_in_use(); return hipSuccess;
    case hipMemPoolAttrReservedMemHigh:
    case hipMemPoolAttrUsedMemHigh: *number = memory_bytes_peak(); return hipSuccess;
  }
  return unsupported("hipMemPoolGetAttribute");
}

HIP_API hipError_t hipMemPoolSetAttribute(hipMemPool_t pool, int attribute, void *value) {
  if (attribute != hipMemPoolAttrReleaseThreshold) return unsupported("hipMemPoolSetAttribute");
  pool->release_threshold = *(const uint64_t *)value;
  return hipSuccess;
}

HIP_API hipError_t hipMemPoolTrimTo(hipMemPool_t pool, size_t bytes_to_keep) {
  (void)pool, (void)bytes_to_keep;
  return hipSuccess;
}
