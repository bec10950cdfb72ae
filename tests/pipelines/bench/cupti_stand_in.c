// Stands for libcupti: gives two buffers of kernel records, the later kernel first, as soon as it is flushed.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

// CUpti_ActivityKernel10 as CUDA 13.0 declares it, up to the fields that are read.
typedef struct __attribute__((packed, aligned(8))) {
  uint32_t kind;
  uint8_t cacheConfig, sharedMemoryConfig;
  uint16_t registersPerThread;
  uint32_t partitionedGlobalCacheRequested, partitionedGlobalCacheExecuted;
  uint64_t start, end, completed;
  uint32_t deviceId, contextId, streamId;
  int32_t gridX, gridY, gridZ, blockX, blockY, blockZ;
  int32_t staticSharedMemory, dynamicSharedMemory;
  uint32_t localMemoryPerThread, localMemoryTotal, correlationId;
  int64_t gridId;
  const char *name;
  uint8_t rest[112];
} Kernel;

enum { SUCCESS = 0, INVALID = 1, NO_MORE = 12, MEMORY_COPY = 1, CONCURRENT_KERNEL = 10 };

static void (*requested)(uint8_t **, size_t *, size_t *);
static void (*completed)(void *, uint32_t, uint8_t *, size_t, size_t);
static int enabled, recorded;

int cuptiActivityRegisterCallbacks(void *give, void *take) {
  requested = give;
  completed = take;
  return SUCCESS;
}

int cuptiActivityEnable(uint32_t kind) {
  enabled = recorded = kind == CONCURRENT_KERNEL;
  return enabled ? SUCCESS : INVALID;
}

int cuptiActivityDisable(uint32_t kind) {
  enabled = 0;
  return SUCCESS;
}

static Kernel kernel(const char *name, uint64_t start, uint64_t end, int x, int y) {
  Kernel made;
  memset(&made, 0x55, sizeof made);
  made.kind = CONCURRENT_KERNEL;
  made.start = start, made.end = end, made.name = name;
  made.gridX = x, made.gridY = y, made.gridZ = 1;
  return made;
}

static void deliver(Kernel first, Kernel second) {
  uint8_t *buffer = NULL;
  size_t size = 0, most = 1;
  requested(&buffer, &size, &most);
  if ((uintptr_t)buffer % 8 || size < 1 << 16 || most) return;
  memcpy(buffer, &first, sizeof first);
  memcpy(buffer + sizeof first, &second, sizeof second);
  completed(NULL, 0, buffer, size, sizeof first + sizeof second);
}

int cuptiActivityFlushAll(uint32_t flag) {
  if (enabled || !recorded || flag != 1) return INVALID;
  Kernel copy = kernel("no kernel", 0, 1, 1, 1);
  copy.kind = MEMORY_COPY;
  deliver(kernel("gemm", 7000000000, 7000001500, 28, 2), copy);
  deliver(kernel("norm", 6999999000, 6999999250, 4, 1), kernel(NULL, 8000000000, 8000000001, 1, 1));
  recorded = 0;
  return SUCCESS;
}

int cuptiActivityGetNextRecord(uint8_t *buffer, size_t valid, uint8_t **record) {
  uint8_t *next = *record ? *record + sizeof(Kernel) : buffer;
  if (next >= buffer + valid) return NO_MORE;
  *record = next;
  return SUCCESS;
}

int cuptiGetResultString(int result, const char **text) {
  *text = "STAND_IN_ERROR";
  return SUCCESS;
}
