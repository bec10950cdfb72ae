// What the parts of the emulated HIP library share: devices, streams, modules, kernels and the pending fault.
#ifndef PREDECODE_EMULATION_DEVICE_H
#define PREDECODE_EMULATION_DEVICE_H

#include <stdbool.h>

#include "hip.h"

struct Wave;

// One emulated device. The ordinal selects architecture and strictness, so that no mode is switched at run
// time.
struct Device {
  const char *name, *arch;
  int ordinal, compute_units, lds_bytes, major, minor, l2_bytes, clock_kilohertz;
  bool strict;
};

struct Context {
  const struct Device *device;
};

struct Stream {
  const struct Device *device;
};

// Kinds of kernel arguments. Hidden ones are filled by the launch; the order is that of device_library.py.
enum ArgumentKind {
  kArgumentValue,
  kArgumentBlockCount,  // 3 kinds: x, y, z; likewise below.
  kArgumentGroupSize = kArgumentBlockCount + 3,
  kArgumentRemainder = kArgumentGroupSize + 3,
  kArgumentGlobalOffset = kArgumentRemainder + 3,
  kArgumentGridDimensions = kArgumentGlobalOffset + 3,
  kArgumentDynamicLdsSize,
  kArgumentZero,
};

struct Argument {
  uint32_t offset, size, kind;
};

struct Kernel {
  const char *name;
  int (*run)(struct Wave *wave);
  const char *(*text)(uint64_t code_offset);
  uint32_t lds_bytes, scratch_bytes, argument_bytes, max_workgroup_size;
  uint32_t resource_words[3];
  uint32_t code_properties, argument_preload;
  uint32_t argument_count;
  const struct Argument *arguments;
  uint64_t code_address;  // Where the code segment's first byte lies in device memory.
  const struct Device *device;
};

struct Variable {
  const char *name;
  uint64_t address, size;
};

// A loaded code object. The tables belong to whoever loaded it and live until it is told to drop `token`.
struct Module {
  uint64_t token;
  void *image;  // Device memory from emulator_place_image.
  uint64_t image_bytes;
  uint32_t kernel_count, variable_count;
  struct Kernel *kernels;
  struct Variable *variables;
};

// Translates and builds the code object at `image` for `device`, and fills `module`; returns 0 on success.
typedef int (*ModuleLoader)(const struct Device *device, const void *image, struct Module *module);
typedef void (*ModuleDropper)(uint64_t token);

const struct Device *device_current(void);

// Keeps the first fault since the last one was taken, as one line, and returns `error`.
hipError_t fault_set(hipError_t error, const char *format, ...) __attribute__((format(printf, 2, 3)));

// Names an unsupported call on stderr.
hipError_t unsupported(const char *call);

hipError_t launch_kernel(struct Kernel *kernel, dim3 grid, dim3 block, uint32_t dynamic_lds_bytes,
                         void **parameters);

// Stream order with host functions, which run on a thread of their own: returns once those queued so far have
// run.
void stream_wait_host_functions(void);

// Checks in strict mode that [pointer, pointer + size) lies in one live buffer.
hipError_t memory_require(const char *call, const char *role, const void *pointer, size_t size);

#endif
