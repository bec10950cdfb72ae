// Stands for libcuda and libamdhip64: the calls by which processes share device memory, which here is host memory without
// a name. A handle tells the process and its file.
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>

typedef struct {
  char data[64];
} Handle;

enum { SUCCESS = 0, INVALID = 1, OUT_OF_MEMORY = 2, CONTEXT = 77 };
static const unsigned UNCACHED = 3;

static int file;
static uintptr_t allocated;
static int current_contexts, device = -1;

static int map(int opened, uint64_t *address) {
  struct stat status;
  if (opened < 0 || fstat(opened, &status)) return INVALID;
  void *memory = mmap(NULL, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, opened, 0);
  *address = (uintptr_t)memory;
  return memory == MAP_FAILED ? OUT_OF_MEMORY : SUCCESS;
}

static int allocate(uint64_t *address, size_t size) {
  file = memfd_create("device", 0);
  if (size > (size_t)1 << 40 || ftruncate(file, size)) return OUT_OF_MEMORY;
  int error = map(file, address);
  allocated = *address;
  return error;
}

static int get_handle(Handle *handle, uint64_t address) {
  if (address != allocated) return INVALID;
  memset(handle, 0, sizeof *handle);
  snprintf(handle->data, sizeof handle->data, "/proc/%d/fd/%d", getpid(), file);
  return SUCCESS;
}

static int open_handle(uint64_t *address, Handle handle, unsigned flags) {
  return flags == 1 ? map(open(handle.data, O_RDWR), address) : INVALID;
}

int cuInit(unsigned flags) { return flags; }
int cuDeviceGet(int *number, int ordinal) { return *number = ordinal, ordinal < 2 ? SUCCESS : INVALID; }
int cuDevicePrimaryCtxRetain(void **context, int number) { return *context = (void *)(uintptr_t)(CONTEXT + number), SUCCESS; }
int cuCtxPushCurrent_v2(void *context) { return ++current_contexts, (uintptr_t)context < CONTEXT; }
int cuCtxPopCurrent_v2(void **context) { return *context = NULL, --current_contexts < 0; }
int cuCtxSynchronize(void) { return current_contexts != 1; }
int cuMemAlloc_v2(uint64_t *address, size_t size) { return current_contexts == 1 ? allocate(address, size) : INVALID; }
int cuMemsetD8_v2(uint64_t address, unsigned char value, size_t size) {
  memset((void *)(uintptr_t)address, value, size);
  return SUCCESS;
}
int cuIpcGetMemHandle(Handle *handle, uint64_t address) { return get_handle(handle, address); }
int cuIpcOpenMemHandle_v2(uint64_t *address, Handle handle, unsigned flags) { return open_handle(address, handle, flags); }
int cuGetErrorString(int error, const char **text) { return *text = error == INVALID ? "invalid" : "out of memory", SUCCESS; }

int hipSetDevice(int ordinal) { return device = ordinal, ordinal < 2 ? SUCCESS : INVALID; }
int hipDeviceSynchronize(void) { return device < 0; }
int hipExtMallocWithFlags(void **pointer, size_t size, unsigned flags) {
  return flags == UNCACHED ? allocate((uint64_t *)pointer, size) : INVALID;
}
int hipMemset(void *pointer, int value, size_t size) { return memset(pointer, value, size), SUCCESS; }
int hipIpcGetMemHandle(Handle *handle, void *pointer) { return get_handle(handle, (uintptr_t)pointer); }
int hipIpcOpenMemHandle(void **pointer, Handle handle, unsigned flags) { return open_handle((uint64_t *)pointer, handle, flags); }
const char *hipGetErrorString(int error) { return error == INVALID ? "invalid" : "out of memory"; }
