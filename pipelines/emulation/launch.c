// A kernel launch: arguments, limits, the dispatch packet, and the record of what the dispatch did.
#include "launch.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

// The AQL kernel dispatch packet, which kernels may read through the dispatch pointer.
struct DispatchPacket {
  uint16_t header, setup, workgroup_size[3], reserved0;
  uint32_t grid_size[3], private_segment_size, group_segment_size;
  uint64_t kernel_object, kernel_arguments, reserved1, completion_signal;
};
_Static_assert(sizeof(struct DispatchPacket) == 64, "the packet is 64 bytes");

enum { kMaxWorkgroupSize = 1024 };

// ---- Records ----

static pthread_mutex_t record_lock = PTHREAD_MUTEX_INITIALIZER;
static struct DispatchRecord *records;
static size_t record_count, record_capacity;
static uint64_t dispatch_serial;

static void keep_record(const struct DispatchRecord *record) {
  pthread_mutex_lock(&record_lock);
  if (record_count == record_capacity) {
    size_t wanted = record_capacity ? record_capacity * 2 : 256;
    struct DispatchRecord *grown = realloc(records, wanted * sizeof *records);
    if (grown) {
      records = grown;
      record_capacity = wanted;
    }
  }
  if (record_count < record_capacity) records[record_count++] = *record;
  pthread_mutex_unlock(&record_lock);
}

// Copies up to `capacity` of the oldest records, forgets them and returns how many.
HIP_API size_t emulator_take_records(struct DispatchRecord *taken, size_t capacity) {
  pthread_mutex_lock(&record_lock);
  size_t count = record_count < capacity ? record_count : capacity;
  if (count) {
    memcpy(taken, records, count * sizeof *records);
    memmove(records, records + count, (record_count - count) * sizeof *records);
    record_count -= count;
  }
  pthread_mutex_unlock(&record_lock);
  return count;
}

// ---- Arguments ----

static uint64_t hidden_argument(const struct Launch *launch, uint32_t kind) {
  const uint32_t grid[3] = {launch->grid.x, launch->grid.y, launch->grid.z};
  const uint32_t block[3] = {launch->block.x, launch->block.y, launch->block.z};
  if (kind < kArgumentGroupSize) return grid[kind - kArgumentBlockCount];
  if (kind < kArgumentRemainder) return block[kind - kArgumentGroupSize];
  if (kind == kArgumentGridDimensions) return grid[2] * block[2] > 1 ? 3 : grid[1] * block[1] > 1 ? 2 : 1;
  if (kind == kArgumentDynamicLdsSize) return launch->lds_bytes - launch->kernel->lds_bytes;
  return 0;  // Remainders and offsets of a HIP launch are zero; services of a full runtime are absent.
}

static void write_arguments(const struct Launch *launch, char *target, void **parameters) {
  const struct Kernel *kernel = launch->kernel;
  uint32_t visible = 0;
  for (uint32_t i = 0; i < kernel->argument_count; ++i) {
    const struct Argument *argument = &kernel->arguments[i];
    if (argument->kind == kArgumentValue) {
      memcpy(target + argument->offset, parameters[visible++], argument->size);
    } else {
      uint64_t value = hidden_argument(launch, argument->kind);
      memcpy(target + argument->offset, &value, argument->size < 8 ? argument->size : 8);
    }
  }
}

static void write_packet(const struct Launch *launch, struct DispatchPacket *packet) {
  dim3 grid = launch->grid, block = launch->block;
  *packet = (struct DispatchPacket){
      .header = 2,  // Kernel dispatch.
      .setup = 3,   // Dimensions.
      .workgroup_size = {(uint16_t)block.x, (uint16_t)block.y, (uint16_t)block.z},
      .grid_size = {grid.x * block.x, grid.y * block.y, grid.z * block.z},
      .private_segment_size = launch->kernel->scratch_bytes,
      .group_segment_size = launch->lds_bytes,
      .kernel_arguments = launch->kernel_arguments,
  };
}

// ---- Launch ----

static hipError_t check_limits(const struct Kernel *kernel, dim3 grid, dim3 block, uint32_t lds_bytes) {
  uint64_t size = (uint64_t)block.x * block.y * block.z;
  uint32_t limit =
      kernel->max_workgroup_size < kMaxWorkgroupSize ? kernel->max_workgroup_size : kMaxWorkgroupSize;
  if (!size || size > limit)
    return fault_set(hipErrorLaunchFailure,
                     "kernel %s: workgroup of %u x %u x %u work-items, expected 1 to %u", kernel->name,
                     block.x, block.y, block.z, limit);
  if (!grid.x || !grid.y || !grid.z)
    return fault_set(hipErrorLaunchFailure,
                     "kernel %s: grid of %u x %u x %u workgroups, expected at least one", kernel->name,
                     grid.x, grid.y, grid.z);
  if (lds_bytes > (uint32_t)kernel->device->lds_bytes)
    return fault_set(hipErrorLaunchFailure, "kernel %s: %u bytes of LDS, but %s has %d", kernel->name,
                     lds_bytes, kernel->device->arch, kernel->device->lds_bytes);
  return hipSuccess;
}

// How many workgroups the chip's compute units hold at once: a kernel whose workgroups wait for each other must
// not need more.
static uint64_t resident_limit(const struct Launch *launch) {
  enum { kSimds = 4, kWavesPerSimd = 8, kRegistersPerSimd = 512 };
  const struct Device *device = launch->kernel->device;
  uint32_t registers = ((launch->kernel->resource_words[0] & 0x3F) + 1) * 8;
  uint32_t waves = kRegistersPerSimd / registers;
  if (waves > kWavesPerSimd) waves = kWavesPerSimd;
  uint64_t groups = waves * kSimds / launch->wave_count;
  if (launch->lds_bytes && (uint64_t)device->lds_bytes / launch->lds_bytes < groups)
    groups = (uint64_t)device->lds_bytes / launch->lds_bytes;
  return (groups ? groups : 1) * (uint64_t)device->compute_units;
}

static double seconds_since(const struct timespec *start) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) * 1e-9;
}

static void record(const struct Launch *launch, const struct LaunchTotals *totals, double seconds) {
  struct DispatchRecord entry = {
      .grid = {launch->grid.x, launch->grid.y, launch->grid.z},
      .block = {launch->block.x, launch->block.y, launch->block.z},
      .strict = launch->strict,
      .lds_bytes = launch->lds_bytes,
      .waves = totals->waves,
      .cache_lines = count_touched_lines(launch->view),
      .seconds = seconds,
      .counters = totals->counters,
  };
  snprintf(entry.kernel, sizeof entry.kernel, "%s", launch->kernel->name);
  keep_record(&entry);
}

hipError_t launch_kernel(struct Kernel *kernel, dim3 grid, dim3 block, uint32_t dynamic_lds_bytes,
                         void **parameters) {
  uint32_t lds_bytes = kernel->lds_bytes + dynamic_lds_bytes;
  hipError_t error = check_limits(kernel, grid, block, lds_bytes);
  if (error) return error;
  struct timespec start;
  clock_gettime(CLOCK_MONOTONIC, &start);
  // Compilers load arguments in whole 16-byte groups.
  size_t packet_bytes = sizeof(struct DispatchPacket) + (kernel->argument_bytes + 15) / 16 * 16;
  struct Launch launch = {
      .kernel = kernel,
      .grid = grid,
      .block = block,
      .lds_bytes = lds_bytes,
      .wave_count = (block.x * block.y * block.z + WAVE_LANES - 1) / WAVE_LANES,
      .workgroup_count = (uint64_t)grid.x * grid.y * grid.z,
      .strict = kernel->device->strict,
      .flush_denormals = !(kernel->resource_words[0] >> 16 & 3),  // FLOAT_DENORM_MODE_32
      .packet = memory_allocate(packet_bytes, false, "kernel arguments"),
      .dispatch_id = __atomic_fetch_add(&dispatch_serial, 1, __ATOMIC_RELAXED),
  };
  if (!launch.packet) return hipErrorOutOfMemory;
  memset(launch.packet, 0, packet_bytes);
  launch.resident_limit = resident_limit(&launch);
  launch.kernel_arguments = (uint64_t)(uintptr_t)launch.packet + sizeof(struct DispatchPacket);
  write_packet(&launch, launch.packet);
  write_arguments(&launch, (char *)launch.packet + sizeof(struct DispatchPacket), parameters);
  launch.view = memory_view_create();
  if (launch.view) {
    struct LaunchTotals totals = {0};
    launch_run(&launch, &totals);
    record(&launch, &totals, seconds_since(&start));
    if (atomic_load(&launch.faulted)) error = fault_set(hipErrorLaunchFailure, "%s", launch.fault);
  } else {
    error = hipErrorOutOfMemory;
  }
  memory_view_destroy(launch.view);
  memory_free(launch.packet);
  return error;
}
