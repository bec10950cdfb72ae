// The state of a workgroup before its first instruction, as LLVM's AMDGPU usage guide describes it for gfx942
// and gfx950.
#include <stdlib.h>
#include <string.h>

#include "launch.h"

enum {
  kScratchPadding = 64,
  kUninitializedByte = 0xFF,
  // COMPUTE_PGM_RSRC2
  kEnableWorkgroupIdX = 1 << 7,
  kEnableWorkgroupIdY = 1 << 8,
  kEnableWorkgroupIdZ = 1 << 9,
  kEnableWorkgroupInfo = 1 << 10,
  // Kernel code properties
  kEnablePrivateSegmentBuffer = 1 << 0,
  kEnableDispatchPointer = 1 << 1,
  kEnableQueuePointer = 1 << 2,
  kEnableKernelArguments = 1 << 3,
  kEnableDispatchId = 1 << 4,
  kEnableFlatScratch = 1 << 5,
  kEnablePrivateSegmentSize = 1 << 6,
};

struct GroupContext *group_context_create(struct Launch *launch) {
  struct GroupContext *context = calloc(1, sizeof *context);
  if (!context) return NULL;
  struct Workgroup *group = &context->group;
  size_t scratch_bytes =
      (size_t)launch->kernel->scratch_bytes * WAVE_LANES * launch->wave_count + kScratchPadding;
  size_t wave_bytes = (sizeof(struct Wave) + 63) / 64 * 64;
  context->launch = launch;
  context->waves = aligned_alloc(64, wave_bytes * launch->wave_count);
  context->scratch = malloc(scratch_bytes);
  context->scratch_state = launch->strict ? malloc(scratch_bytes) : NULL;
  group->lds = malloc(launch->lds_bytes + kMaxLdsPadding);
  group->lds_bytes = launch->strict ? malloc((launch->lds_bytes + 1) * sizeof *group->lds_bytes) : NULL;
  if (!context->waves || !context->scratch || !group->lds ||
      (launch->strict && (!group->lds_bytes || !context->scratch_state))) {
    group_context_destroy(context);
    return NULL;
  }
  group->lds_size = launch->lds_bytes;
  group->wave_count = launch->wave_count;
  for (uint32_t i = 0; i < launch->wave_count; ++i) group->waves[i] = &context->waves[i];
  group->dispatch_pointer = launch->packet;
  group->user = context;
  group->check_global = launch->strict ? check_global_access : NULL;
  group->report = report_wave_fault;
  return context;
}

void group_context_destroy(struct GroupContext *context) {
  if (!context) return;
  free(context->waves);
  free(context->scratch);
  free(context->scratch_state);
  free(context->group.lds);
  free(context->group.lds_bytes);
  free(context);
}

static void push(struct Wave *wave, uint32_t value) { wave->sgpr[wave->initialized_sgprs++] = value; }

static void push_pointer(struct Wave *wave, uint64_t value) {
  push(wave, (uint32_t)value);
  push(wave, (uint32_t)(value >> 32));
}

static void set_scalar_registers(struct Wave *wave, const struct Launch *launch, const uint32_t id[3]) {
  const struct Kernel *kernel = launch->kernel;
  uint32_t properties = kernel->code_properties, word2 = kernel->resource_words[1];
  if (properties & kEnablePrivateSegmentBuffer) wave->initialized_sgprs += 4;
  if (properties & kEnableDispatchPointer) push_pointer(wave, (uint64_t)(uintptr_t)launch->packet);
  if (properties & kEnableQueuePointer) push_pointer(wave, 0);
  if (properties & kEnableKernelArguments) push_pointer(wave, launch->kernel_arguments);
  if (properties & kEnableDispatchId) push_pointer(wave, launch->dispatch_id);
  if (properties & kEnableFlatScratch) push_pointer(wave, 0);
  if (properties & kEnablePrivateSegmentSize) push(wave, kernel->scratch_bytes);
  const uint32_t *arguments = (const uint32_t *)(uintptr_t)launch->kernel_arguments;
  uint32_t preload_count = kernel->argument_preload & 0x7F, preload_first = kernel->argument_preload >> 7;
  for (uint32_t i = 0; i < preload_count; ++i) push(wave, arguments[preload_first + i]);
  if (word2 & kEnableWorkgroupIdX) push(wave, id[0]);
  if (word2 & kEnableWorkgroupIdY) push(wave, id[1]);
  if (word2 & kEnableWorkgroupIdZ) push(wave, id[2]);
  if (word2 & kEnableWorkgroupInfo) push(wave, launch->wave_count);
}

static void set_vector_registers(struct Wave *wave, const struct Launch *launch) {
  dim3 block = launch->block;
  uint32_t size = block.x * block.y * block.z, dimensions = launch->kernel->resource_words[1] >> 11 & 3;
  uint64_t exec = 0;
  for (uint32_t lane = 0; lane < WAVE_LANES; ++lane) {
    uint32_t item = wave->index_in_workgroup * WAVE_LANES + lane;
    if (item >= size) break;
    uint32_t x = item % block.x, y = item / block.x % block.y, z = item / (block.x * block.y);
    wave->vgpr[0][lane] = x | (dimensions > 0 ? y << 10 : 0) | (dimensions > 1 ? z << 20 : 0);
    exec |= UINT64_C(1) << lane;
  }
  wave->initialized_vgprs = 1;
  wave->sgpr[SGPR_EXEC] = (uint32_t)exec;
  wave->sgpr[SGPR_EXEC + 1] = (uint32_t)(exec >> 32);
}

// Registers that the kernel cannot name stay as they are: clearing all 512 would cost more than a small
// kernel.
static void clear(struct Wave *wave, const struct Launch *launch) {
  const uint32_t *words = launch->kernel->resource_words;
  uint32_t first_accumulation = ((words[2] & 0x3F) + 1) * 4, total = ((words[0] & 0x3F) + 1) * 8;
  uint32_t vector = total < first_accumulation ? total : first_accumulation;
  memset(wave->vgpr, 0, vector * sizeof wave->vgpr[0]);
  if (total > vector) memset(wave->vgpr[FIRST_AGPR], 0, (total - vector) * sizeof wave->vgpr[0]);
  size_t rest = offsetof(struct Wave, lane_mask);
  size_t end = launch->strict ? sizeof *wave : offsetof(struct Wave, checks);
  memset((char *)wave + rest, 0, end - rest);
}

void group_context_begin(struct GroupContext *context, uint64_t workgroup) {
  struct Launch *launch = context->launch;
  struct Workgroup *group = &context->group;
  const struct Kernel *kernel = launch->kernel;
  uint32_t *id = group->id;
  context->id = workgroup;
  id[0] = (uint32_t)(workgroup % launch->grid.x);
  id[1] = (uint32_t)(workgroup / launch->grid.x % launch->grid.y);
  id[2] = (uint32_t)(workgroup / launch->grid.x / launch->grid.y);
  memset(group->lds, kUninitializedByte, launch->lds_bytes);
  if (group->lds_bytes) memset(group->lds_bytes, 0, launch->lds_bytes * sizeof *group->lds_bytes);
  memset(context->status, WAVE_YIELDED, sizeof context->status);
  size_t scratch_bytes = (size_t)kernel->scratch_bytes * WAVE_LANES;
  memset(context->scratch, kUninitializedByte, scratch_bytes * launch->wave_count);
  if (context->scratch_state) memset(context->scratch_state, 0, scratch_bytes * launch->wave_count);
  uint32_t mode = (kernel->resource_words[0] >> 12 & 0xFF) | (kernel->resource_words[0] >> 21 & 1) << 8 |
                  (kernel->resource_words[0] >> 23 & 1) << 9;
  for (uint32_t i = 0; i < launch->wave_count; ++i) {
    struct Wave *wave = &context->waves[i];
    clear(wave, launch);
    wave->index_in_workgroup = i;
    wave->workgroup = group;
    wave->scratch = context->scratch + scratch_bytes * i;
    if (context->scratch_state) wave->scratch_state = context->scratch_state + scratch_bytes * i;
    wave->scratch_bytes_per_lane = kernel->scratch_bytes;
    wave->code_address = kernel->code_address;
    wave->mode = mode;
    set_scalar_registers(wave, launch, id);
    set_vector_registers(wave, launch);
  }
}
