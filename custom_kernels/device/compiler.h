// Entry macros, vector types and the identity of the running thread, for AMD (HIP) and NVIDIA (CUDA) alike.
//
// Kernels are compiled by a bare clang, without the vendors' headers: everything used is declared here. A
// kernel's body is a DEVICE function of the op's name: `void op(Workgroup, Shared &, pointers..., ints...)`, or
// the same without workgroup memory. The entry that is launched is generated (entry.h), from one body or
// several. Block sizes are compile-time constants, never read from the launch. Compiled for neither GPU, only
// the declarations that need no device (such as layouts.h) can be used.
#pragma once

typedef unsigned char uint8;
typedef unsigned short uint16;
typedef unsigned int uint32;
typedef unsigned long long uint64;
typedef long long int64;
typedef float float2 __attribute__((ext_vector_type(2)));
typedef float float4 __attribute__((ext_vector_type(4)));
typedef uint32 uint32x2 __attribute__((ext_vector_type(2)));
typedef uint32 uint32x4 __attribute__((ext_vector_type(4)));

// Which workgroup of an op's own grid a body runs as, and whether it posts its result (mailbox.h): known when compiling.
struct Workgroup {
  int x, y, z;
  bool posts = false;
};

#if defined(__AMDGCN__) || defined(__NVPTX__)
#define DEVICE static inline __attribute__((device, always_inline))
#define MEMBER __attribute__((device, always_inline))
#define SHARED static __attribute__((shared))
#else
#define DEVICE static inline
#endif

#if defined(__AMDGCN__)
// `KERNEL(threads) void name(...)`: an entry launched with exactly `threads` threads along x.
#define KERNEL(threads) extern "C" __attribute__((global, amdgpu_flat_work_group_size(threads, threads)))
// The same with registers for `workgroups` workgroups on a compute unit, whose four units hold a wave each.
#define RESIDENT_KERNEL(threads, workgroups) \
  KERNEL(threads) __attribute__((amdgpu_waves_per_eu((threads) / 256 * (workgroups))))
constexpr int WAVE_SIZE = 64;

DEVICE int thread_id() { return __builtin_amdgcn_workitem_id_x(); }
DEVICE int workgroup_x() { return __builtin_amdgcn_workgroup_id_x(); }
DEVICE int workgroup_y() { return __builtin_amdgcn_workgroup_id_y(); }
DEVICE int workgroup_z() { return __builtin_amdgcn_workgroup_id_z(); }

// All threads of the workgroup arrive, and see each other's earlier writes to shared and global memory.
DEVICE void barrier() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

// The value of `value` in lane `source` of the wave; all lanes must take part.
DEVICE int wave_read(int value, int source) { return __builtin_amdgcn_ds_bpermute(source * 4, value); }
#elif defined(__NVPTX__)
#define KERNEL(threads) extern "C" __attribute__((global, launch_bounds(threads)))
#define RESIDENT_KERNEL(threads, workgroups) extern "C" __attribute__((global, launch_bounds(threads, workgroups)))
constexpr int WAVE_SIZE = 32;

// Where something lies in workgroup memory, as instructions take it that are written out.
typedef uint32 SharedAddress;
DEVICE SharedAddress shared_address(const void *memory) {
  return (uint32)(uint64)(__attribute__((address_space(3))) const void *)memory;
}

DEVICE int thread_id() { return __nvvm_read_ptx_sreg_tid_x(); }
DEVICE int workgroup_x() { return __nvvm_read_ptx_sreg_ctaid_x(); }
DEVICE int workgroup_y() { return __nvvm_read_ptx_sreg_ctaid_y(); }
DEVICE int workgroup_z() { return __nvvm_read_ptx_sreg_ctaid_z(); }

// All threads of the workgroup arrive, and see each other's earlier writes to shared and global memory.
DEVICE void barrier() { __syncthreads(); }

// The value of `value` in lane `source` of the wave; all lanes must take part.
DEVICE int wave_read(int value, int source) {
  return __nvvm_shfl_sync_idx_i32(0xFFFFFFFF, value, source, WAVE_SIZE - 1);
}
#endif

#if defined(__AMDGCN__) || defined(__NVPTX__)
DEVICE int lane_id() { return thread_id() & (WAVE_SIZE - 1); }
DEVICE int wave_id() { return thread_id() / WAVE_SIZE; }

// The wave's index, known to the compiler as equal in all lanes: loops and addresses from it are scalar.
DEVICE int uniform_wave_id() {
#if defined(__AMDGCN__)
  return __builtin_amdgcn_readfirstlane(wave_id());
#else
  return wave_id();
#endif
}

DEVICE float wave_read(float value, int source) {
  return __builtin_bit_cast(float, wave_read(__builtin_bit_cast(int, value), source));
}
#endif

static constexpr int divide_up(int dividend, int divisor) { return (dividend + divisor - 1) / divisor; }
