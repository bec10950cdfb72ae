// How workgroups of one grid wait for each other, in kernels that hold several ops: a barrier of a grid that is resident
// as a whole, or arrivals, which later workgroups wait for.
#pragma once

#include "compiler.h"

// Two words in global memory, zero before the first launch that uses them; every barrier leaves `arrived` at zero.
struct GridBarrier {
  uint32 arrived, generation;
};

// Who sees relaxed accesses of the same words in order: the workgroups of one device, or those of all.
enum class Scope { ONE_DEVICE, ALL_DEVICES };

#if defined(__AMDGCN__)
// The writes of all threads that came here before become visible to the device.
DEVICE void release_to_device() { __builtin_amdgcn_fence(__ATOMIC_RELEASE, "agent"); }
// Later reads see what other workgroups released.
DEVICE void acquire_from_device() { __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "agent"); }
// The running wave's stores have left the compute unit.
DEVICE void finish_stores() { __builtin_amdgcn_s_waitcnt(0); }
// A spinning wave gives way to others.
DEVICE void pause() { __builtin_amdgcn_s_sleep(1); }

template <Scope SCOPE>
constexpr int MEMORY_SCOPE = SCOPE == Scope::ONE_DEVICE ? __MEMORY_SCOPE_DEVICE : __MEMORY_SCOPE_SYSTEM;

template <Scope SCOPE = Scope::ONE_DEVICE> DEVICE uint32 load_relaxed(const uint32 *word) {
  return __scoped_atomic_load_n(word, __ATOMIC_RELAXED, MEMORY_SCOPE<SCOPE>);
}
template <Scope SCOPE = Scope::ONE_DEVICE> DEVICE void store_relaxed(uint32 *word, uint32 value) {
  __scoped_atomic_store_n(word, value, __ATOMIC_RELAXED, MEMORY_SCOPE<SCOPE>);
}
template <Scope SCOPE = Scope::ONE_DEVICE> DEVICE uint32x4 load_relaxed(const uint32x4 *words) {
  uint32x4 values;
#pragma unroll
  for (int i = 0; i < 4; ++i) values[i] = load_relaxed<SCOPE>((const uint32 *)words + i);
  return values;
}
template <Scope SCOPE = Scope::ONE_DEVICE> DEVICE void store_relaxed(uint32x4 *words, uint32x4 values) {
#pragma unroll
  for (int i = 0; i < 4; ++i) store_relaxed<SCOPE>((uint32 *)words + i, values[i]);
}
DEVICE uint32 add_relaxed(uint32 *word, uint32 value) {
  return __scoped_atomic_fetch_add(word, value, __ATOMIC_RELAXED, __MEMORY_SCOPE_DEVICE);
}
#else
// This compiler gives NVIDIA's atomics the scope of the whole system and drops the order of read-modify-writes:
// relaxed accesses of the device's scope are written out, and ordered by fences.
DEVICE void release_to_device() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }
// What this thread has acquired, the copy engine (bulk_copy.h) reads too.
DEVICE void acquire_for_engines() { asm volatile("fence.proxy.async.global;" ::: "memory"); }
DEVICE void acquire_from_device() {
  asm volatile("fence.acq_rel.gpu;" ::: "memory");
  acquire_for_engines();
}
DEVICE void finish_stores() {}
DEVICE void pause() { __nvvm_nanosleep(20); }

DEVICE uint32 load_relaxed(const uint32 *word) {
  uint32 value;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
  return value;
}
DEVICE uint32 load_acquire(const uint32 *word) {
  uint32 value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
  return value;
}
DEVICE void store_relaxed(uint32 *word, uint32 value) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
}
// Each of the four for itself.
#define LOAD_RELAXED(scope)                                              \
  asm volatile("ld.relaxed." scope ".global.v4.u32 {%0, %1, %2, %3}, [%4];" \
               : "=r"(a), "=r"(b), "=r"(c), "=r"(d)                      \
               : "l"(words)                                              \
               : "memory")
#define STORE_RELAXED(scope)                                                                                          \
  asm volatile("st.relaxed." scope ".global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(words), "r"(values[0]), "r"(values[1]), \
               "r"(values[2]), "r"(values[3])                                                                         \
               : "memory")
template <Scope SCOPE = Scope::ONE_DEVICE> DEVICE uint32x4 load_relaxed(const uint32x4 *words) {
  uint32 a, b, c, d;
  if constexpr (SCOPE == Scope::ONE_DEVICE) LOAD_RELAXED("gpu");
  else LOAD_RELAXED("sys");
  return {a, b, c, d};
}
template <Scope SCOPE = Scope::ONE_DEVICE> DEVICE void store_relaxed(uint32x4 *words, uint32x4 values) {
  if constexpr (SCOPE == Scope::ONE_DEVICE) STORE_RELAXED("gpu");
  else STORE_RELAXED("sys");
}
#undef LOAD_RELAXED
#undef STORE_RELAXED
DEVICE uint32 add_relaxed(uint32 *word, uint32 value) {
  uint32 before;
  asm volatile("atom.relaxed.gpu.global.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(word), "r"(value) : "memory");
  return before;
}
#endif

// Adds `value` to `word`, after all that the threads which came here before wrote.
DEVICE void add_release(uint32 *word, uint32 value) {
#if defined(__AMDGCN__)
  release_to_device();
  add_relaxed(word, value);
#else
  // Faster than a fence, which also orders what comes after.
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory");
#endif
}

// Returns when `word` has become `value`; later reads see what those released who wrote it.
DEVICE void wait_for_value(const uint32 *word, uint32 value) {
#if defined(__AMDGCN__)
  while (load_relaxed(word) != value) pause();
  acquire_from_device();
#else
  // Loads that acquire, not a fence thereafter: that would also wait for what this workgroup has under way.
  while (load_acquire(word) != value) pause();
  acquire_for_engines();
#endif
}

// Two words in global memory, zero before the first launch that uses them and after each: how many of the workgroups
// of a phase have ended, and how many of those that wait for them have seen it.
struct Arrivals {
  uint32 arrived, seen;
};

// A phase's `workgroups`, which `waiting` workgroups of the next one wait for; none are waited for with `workgroups` 0.
// A workgroup that waits for none may take what they post instead (mailbox.h).
struct EarlierPhase {
  Arrivals *arrivals;
  uint32 workgroups, waiting;
  bool posts = false;

  // Returns when all workgroups of the phase have ended, and what they wrote to global memory can be read. Workgroups
  // start in the order of their indices and only wait for earlier ones, so that these can always run. `leave` takes what
  // is returned, which is on its way from memory until then.
  MEMBER uint32 wait() const {
    uint32 seen_before = 0;
    if (workgroups == 0) return seen_before;
    if (thread_id() == 0) {
      wait_for_value(&arrivals->arrived, workgroups);
      seen_before = add_relaxed(&arrivals->seen, 1);
    }
    barrier();
    return seen_before;
  }

  // The last workgroup to have waited leaves both words zero.
  MEMBER void leave(uint32 seen_before) const {
    if (workgroups == 0 || thread_id() != 0 || seen_before != waiting - 1) return;
    store_relaxed(&arrivals->seen, 0);
    store_relaxed(&arrivals->arrived, 0);
  }
};

// The workgroup has done its part of the phase.
DEVICE void arrive(Arrivals *arrivals) {
  finish_stores();
  barrier();
  if (thread_id() == 0) add_release(&arrivals->arrived, 1);
}

// `EarlierPhase::leave` does nothing with it.
constexpr uint32 NOT_THE_LAST = ~0u;

// The workgroup of a body that first loads what no op makes, such as weights. It calls `await_inputs` before anything
// else, with all threads; bodies that take a `Workgroup` are called when their inputs are there.
struct EarlyWorkgroup : Workgroup {
  EarlierPhase earlier;
  uint32 &seen_before;

  // Whether there is anything to wait for, and whether the body takes it, for which `await_inputs` does not wait: known
  // when compiling.
  MEMBER bool waits() const { return earlier.workgroups > 0 || takes(); }
  MEMBER bool takes() const { return earlier.posts; }
  MEMBER void await_inputs() const { seen_before = earlier.wait(); }
  // What is done when the body has returned; before, where it needs the register.
  MEMBER void leave() const {
    earlier.leave(seen_before);
    seen_before = NOT_THE_LAST;
  }
};

// Every thread of all `workgroups` workgroups arrives, and sees what any of them wrote to global memory before.
DEVICE void grid_barrier(GridBarrier *state, uint32 workgroups) {
  finish_stores();
  barrier();
  if (thread_id() == 0) {
    uint32 generation = load_relaxed(&state->generation);
    release_to_device();
    if (add_relaxed(&state->arrived, 1) == workgroups - 1) {
      store_relaxed(&state->arrived, 0);
      release_to_device();
      store_relaxed(&state->generation, generation + 1);
    } else {
      while (load_relaxed(&state->generation) == generation) pause();
    }
    acquire_from_device();
  }
  barrier();
}
