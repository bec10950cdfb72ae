// Spreads workgroups over host threads and interleaves the waves of each as coroutines.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "launch.h"

enum { kMaxResidentGroups = 304 * 32, kStallSweeps = 20000 };  // As many as the largest chip has wave slots.
static const double kStallSeconds = 20, kSharedStallSeconds = 120;

// One host thread: the workgroups it holds in flight. More than one only when they wait for each other.
struct Runner {
  struct Launch *launch;
  struct LaunchTotals totals;
  uint32_t index;
  // Since when, and over how many calls of all its waves, this thread has seen nobody make progress.
  uint64_t seen_progress, idle_sweeps;
  double seen_at;
  size_t resident_count, spare_count;
  struct GroupContext *residents[kMaxResidentGroups], *spares[kMaxResidentGroups];
};

enum GroupState { kGroupDone, kGroupYielded, kGroupFaulted };

static void add_counters(struct WaveCounters *total, const struct WaveCounters *part) {
  uint64_t *sums = (uint64_t *)total;
  const uint64_t *values = (const uint64_t *)part;
  for (size_t i = 0; i < sizeof *total / sizeof *sums; ++i) sums[i] += values[i];
}

// Calls every wave that can run once, again and again, until the workgroup ends or one of its waves yields.
// Sets `progressed` when a wave ended, reached a barrier or changed memory.
static enum GroupState advance(struct GroupContext *context, bool *progressed) {
  struct Launch *launch = context->launch;
  uint32_t count = launch->wave_count;
  for (;;) {
    uint32_t ended = 0, waiting = 0;
    bool yielded = false;
    for (uint32_t i = 0; i < count; ++i) {
      if (context->status[i] == WAVE_YIELDED) {
        if (atomic_load_explicit(&launch->faulted, memory_order_relaxed)) return kGroupFaulted;
        uint64_t changes = context->waves[i].memory_changes;
        context->status[i] = (uint8_t)launch->kernel->run(&context->waves[i]);
        if (context->status[i] == WAVE_FAULTED) {
          launch_fail(launch, "kernel %s: a wave failed without a reason", launch->kernel->name);
          return kGroupFaulted;
        }
        if (context->status[i] == WAVE_YIELDED) yielded = true;
        if (context->status[i] != WAVE_YIELDED || context->waves[i].memory_changes != changes) {
          atomic_fetch_add_explicit(&launch->progress, 1, memory_order_relaxed);
          *progressed = true;
        }
      }
      ended += context->status[i] == WAVE_ENDED;
      waiting += context->status[i] == WAVE_BARRIER;
    }
    if (ended == count) return kGroupDone;
    if (ended + waiting == count) {  // Waves that have ended no longer count for a barrier.
      for (uint32_t i = 0; i < count; ++i)
        if (context->status[i] == WAVE_BARRIER) context->status[i] = WAVE_YIELDED;
    }
    if (yielded) return kGroupYielded;
  }
}

static bool leave(struct Launch *launch) {
  atomic_fetch_sub(&launch->resident_groups, 1);
  return false;
}

static bool start_group(struct Runner *runner) {
  struct Launch *launch = runner->launch;
  if (runner->resident_count == kMaxResidentGroups) return false;
  if (atomic_load(&launch->next_workgroup) >= launch->workgroup_count) return false;
  if (atomic_fetch_add(&launch->resident_groups, 1) >= launch->resident_limit) return leave(launch);
  struct GroupContext *context =
      runner->spare_count ? runner->spares[--runner->spare_count] : group_context_create(launch);
  if (!context) {
    if (!runner->resident_count)
      launch_fail(launch, "kernel %s: no host memory for the registers of one workgroup",
                  launch->kernel->name);
    return leave(launch);
  }
  uint64_t workgroup = atomic_fetch_add(&launch->next_workgroup, 1);
  if (workgroup >= launch->workgroup_count) {
    runner->spares[runner->spare_count++] = context;
    return leave(launch);
  }
  group_context_begin(context, workgroup);
  runner->residents[runner->resident_count++] = context;
  return true;
}

static void finish_group(struct Runner *runner, size_t index) {
  struct GroupContext *context = runner->residents[index];
  for (uint32_t i = 0; i < runner->launch->wave_count; ++i)
    add_counters(&runner->totals.counters, &context->waves[i].counters);
  runner->totals.waves += runner->launch->wave_count;
  runner->residents[index] = runner->residents[--runner->resident_count];
  runner->spares[runner->spare_count++] = context;
  leave(runner->launch);
}

static double now_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

// The float control word of this thread, so that its arithmetic flushes single-precision denormals as the
// kernel asks. Half precision is not touched by it; double precision would be, but such kernels do not use
// denormal doubles.
#if defined(__x86_64__)
typedef uint32_t FloatControl;
static const FloatControl kFlush = 0x8040;  // Flush to zero, denormals are zero.
static FloatControl get_float_control(void) { return __builtin_ia32_stmxcsr(); }
static void set_float_control(FloatControl value) { __builtin_ia32_ldmxcsr(value); }
#elif defined(__aarch64__)
typedef uint64_t FloatControl;
static const FloatControl kFlush = UINT64_C(1) << 24;
static FloatControl get_float_control(void) {
  FloatControl value;
  __asm__ volatile("mrs %0, fpcr" : "=r"(value));
  return value;
}
static void set_float_control(FloatControl value) { __asm__ volatile("msr fpcr, %0" ::"r"(value)); }
#else
#error "the emulated device knows the float control word of x86-64 and of AArch64 only"
#endif

// Counts one more sweep in which this thread has seen nobody make progress, and whether that is enough. What other
// processes do cannot be seen.
static bool has_waited(struct Runner *runner) {
  ++runner->idle_sweeps;
  double waited = now_seconds() - runner->seen_at;
  if (memory_is_shared()) return waited > kSharedStallSeconds;
  return runner->idle_sweeps >= kStallSweeps || waited > kStallSeconds;
}

// Called when every workgroup of this thread waits for something and no further one can start: maybe another
// thread's makes it come. The launch has stalled when all threads have found so with no progress between.
static void watch_for_stall(struct Runner *runner) {
  struct Launch *launch = runner->launch;
  uint64_t progress = atomic_load(&launch->progress);
  if (progress != runner->seen_progress || !runner->idle_sweeps) {
    runner->seen_progress = progress;
    runner->idle_sweeps = 1;
    runner->seen_at = now_seconds();
  } else if (has_waited(runner)) {
    atomic_store(&launch->stalled_at[runner->index], progress);
    bool all = true;
    for (uint32_t i = 0; i < launch->runner_count; ++i) {
      uint64_t stalled_at = atomic_load(&launch->stalled_at[i]);
      all = all && (stalled_at == progress || stalled_at == kRunnerEnded);
    }
    if (all) report_stall(runner->residents[0]);
  }
  sched_yield();
}

static void run_workgroups(struct Runner *runner) {
  struct Launch *launch = runner->launch;
  while (!atomic_load(&launch->faulted)) {
    if (!runner->resident_count && !start_group(runner)) break;
    bool progressed = false;
    for (size_t i = 0; i < runner->resident_count;) {
      enum GroupState state = advance(runner->residents[i], &progressed);
      if (state == kGroupFaulted) break;
      if (state == kGroupDone) finish_group(runner, i);
      else ++i;
    }
    if (progressed || start_group(runner)) continue;
    watch_for_stall(runner);
  }
  atomic_store(&launch->stalled_at[runner->index], kRunnerEnded);
  for (size_t i = 0; i < runner->resident_count; ++i) group_context_destroy(runner->residents[i]);
  for (size_t i = 0; i < runner->spare_count; ++i) group_context_destroy(runner->spares[i]);
}

static void *run_thread(void *argument) {
  struct Runner *runner = argument;
  FloatControl before = get_float_control();
  set_float_control(runner->launch->flush_denormals ? before | kFlush : before & ~kFlush);
  run_workgroups(runner);
  set_float_control(before);
  return NULL;
}

static uint32_t usable_threads(uint64_t workgroup_count) {
  cpu_set_t processors;
  uint32_t count = 1;
  if (!sched_getaffinity(0, sizeof processors, &processors)) count = (uint32_t)CPU_COUNT(&processors);
  if (count > kMaxThreads) count = kMaxThreads;
  return workgroup_count < count ? (uint32_t)workgroup_count : count;
}

void launch_run(struct Launch *launch, struct LaunchTotals *totals) {
  uint32_t count = usable_threads(launch->workgroup_count);
  pthread_t threads[kMaxThreads];
  bool started[kMaxThreads] = {false};
  struct Runner *runners = calloc(count, sizeof *runners);
  if (!runners) {
    launch_fail(launch, "kernel %s: no host memory to launch it", launch->kernel->name);
    return;
  }
  launch->runner_count = count;
  for (uint32_t i = 0; i < count; ++i) {
    runners[i].launch = launch;
    runners[i].index = i;
    atomic_store(&launch->stalled_at[i], kRunnerBusy);
  }
  for (uint32_t i = 1; i < count; ++i) {
    started[i] = !pthread_create(&threads[i], NULL, run_thread, &runners[i]);
    if (!started[i]) atomic_store(&launch->stalled_at[i], kRunnerEnded);
  }
  run_thread(&runners[0]);
  for (uint32_t i = 0; i < count; ++i) {
    if (started[i]) pthread_join(threads[i], NULL);
    add_counters(&totals->counters, &runners[i].totals.counters);
    totals->waves += runners[i].totals.waves;
  }
  free(runners);
}
