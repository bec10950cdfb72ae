// One kernel launch: what its workgroups share, and the parts that run it.
#ifndef PREDECODE_EMULATION_LAUNCH_H
#define PREDECODE_EMULATION_LAUNCH_H

#include <stdatomic.h>

#include "device.h"
#include "memory.h"
#include "wave.h"

enum { kMaxWaves = 16, kMaxLdsPadding = 64, kFaultTextCapacity = 2048, kMaxThreads = 64 };

// Values of Launch.stalled_at besides a progress count.
static const uint64_t kRunnerBusy = UINT64_MAX, kRunnerEnded = UINT64_MAX - 1;

struct Launch {
  struct Kernel *kernel;
  dim3 grid, block;  // Workgroups, and work-items of one workgroup.
  uint32_t lds_bytes, wave_count;
  uint64_t workgroup_count;
  bool strict, flush_denormals;
  void *packet;               // The AQL dispatch packet, followed by the kernel arguments.
  uint64_t kernel_arguments;  // Their device address.
  uint64_t dispatch_id;
  struct MemoryView *view;
  uint64_t resident_limit;        // How many workgroups the chip holds at once.
  atomic_ullong next_workgroup, resident_groups;
  atomic_ullong progress;         // Grows whenever a wave ends, reaches a barrier or changes memory.
  uint32_t runner_count;          // Host threads,
  atomic_ullong stalled_at[kMaxThreads];  // and the progress at which each found all its waves waiting.
  atomic_bool faulted;     // Stops every thread of the launch.
  atomic_bool explained;   // Taken by the first fault, which alone writes the text.
  char fault[kFaultTextCapacity];
};

// Everything that one host thread adds up while it runs workgroups.
struct LaunchTotals {
  struct WaveCounters counters;
  uint64_t waves;
};

// What one dispatch did, in dispatch order (`DispatchRecord` of counters.py has the same layout).
struct DispatchRecord {
  char kernel[128];
  uint32_t grid[3], block[3];
  uint32_t strict, lds_bytes;
  uint64_t waves, cache_lines;
  double seconds;
  struct WaveCounters counters;
};

// A workgroup in flight and the memory of its waves; reused from one workgroup to the next.
struct GroupContext {
  struct Workgroup group;  // First: the checks find the context from it.
  struct Launch *launch;
  struct Wave *waves;
  uint8_t *scratch, *scratch_state;
  uint8_t status[kMaxWaves];
  struct BufferRange *last_range;  // The buffer that the last checked access fell into.
  uint64_t id;
};

// launch_state.c: registers and memory of a workgroup before its first instruction.
struct GroupContext *group_context_create(struct Launch *launch);
void group_context_destroy(struct GroupContext *context);
void group_context_begin(struct GroupContext *context, uint64_t workgroup);

// launch_schedule.c: runs every workgroup of the launch, on several host threads if there are several
// workgroups.
void launch_run(struct Launch *launch, struct LaunchTotals *totals);

// launch_checks.c: the hooks of struct Workgroup.
int check_global_access(struct Workgroup *group, uint64_t address, uint32_t bytes, int is_store, int lane,
                        uint64_t code_offset);
void report_wave_fault(struct Workgroup *group, struct Wave *wave, const char *message, int lane,
                       uint64_t code_offset);
void report_stall(const struct GroupContext *context);

// Ends the launch as failed; of several reasons the first is kept, as one line.
void launch_fail(struct Launch *launch, const char *format, ...) __attribute__((format(printf, 2, 3)));
uint64_t count_touched_lines(const struct MemoryView *view);

#endif
