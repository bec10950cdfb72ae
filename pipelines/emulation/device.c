// Devices, contexts, properties and errors of the emulated HIP library.
#include "device.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "memory.h"

static const struct Device devices[] = {
    {"AMD Instinct MI300X (emulated gfx942)", "gfx942", 0, 304, 64 << 10, 9, 4, 4 << 20, 2100000, false},
    {"AMD Instinct MI300X (emulated gfx942, strict)", "gfx942", 1, 304, 64 << 10, 9, 4, 4 << 20, 2100000,
     true},
    {"AMD Instinct MI355X (emulated gfx950)", "gfx950", 2, 256, 160 << 10, 9, 5, 4 << 20, 2400000, false},
    {"AMD Instinct MI355X (emulated gfx950, strict)", "gfx950", 3, 256, 160 << 10, 9, 5, 4 << 20, 2400000,
     true},
};
enum { kDeviceCount = sizeof devices / sizeof devices[0] };
static struct Context contexts[kDeviceCount];
static _Thread_local const struct Device *current;

static const size_t kTotalMemory = (size_t)192 << 30;

const struct Device *device_current(void) { return current ? current : &devices[0]; }

// ---- Faults ----

enum { kFaultCapacity = 2048 };
static pthread_mutex_t fault_lock = PTHREAD_MUTEX_INITIALIZER;
static char pending_fault[kFaultCapacity];

// This thread's latest fault, for the driver's status.
static _Thread_local char last_fault[kFaultCapacity];
static _Thread_local hipError_t last_error;

hipError_t fault_set(hipError_t error, const char *format, ...) {
  char text[kFaultCapacity];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  pthread_mutex_lock(&fault_lock);
  if (!pending_fault[0]) strcpy(pending_fault, text);
  pthread_mutex_unlock(&fault_lock);
  strcpy(last_fault, text);
  last_error = error;
  return error;
}

// Keeps a fault that the host program found, so that the driver's status shows it.
HIP_API void emulator_set_fault(const char *text) { fault_set(hipErrorInvalidImage, "%s", text); }

// Copies the pending fault, forgets it, and returns its length (0 if there is none).
HIP_API size_t emulator_take_fault(char *text, size_t capacity) {
  pthread_mutex_lock(&fault_lock);
  size_t length = strlen(pending_fault);
  snprintf(text, capacity, "%s", pending_fault);
  pending_fault[0] = 0;
  pthread_mutex_unlock(&fault_lock);
  return length;
}

hipError_t unsupported(const char *call) {
  fprintf(stderr, "emulated HIP device: %s is not supported\n", call);
  return hipErrorNotSupported;
}

HIP_API const char *hipGetErrorName(hipError_t error) {
  switch (error) {
    case hipSuccess: return "hipSuccess";
    case hipErrorInvalidValue: return "hipErrorInvalidValue";
    case hipErrorOutOfMemory: return "hipErrorOutOfMemory";
    case hipErrorNotInitialized: return "hipErrorNotInitialized";
    case hipErrorInvalidConfiguration: return "hipErrorInvalidConfiguration";
    case hipErrorInvalidDevicePointer: return "hipErrorInvalidDevicePointer";
    case hipErrorNoDevice: return "hipErrorNoDevice";
    case hipErrorInvalidDevice: return "hipErrorInvalidDevice";
    case hipErrorInvalidImage: return "hipErrorInvalidImage";
    case hipErrorInvalidContext: return "hipErrorInvalidContext";
    case hipErrorPeerAccessUnsupported: return "hipErrorPeerAccessUnsupported";
    case hipErrorInvalidHandle: return "hipErrorInvalidHandle";
    case hipErrorNotFound: return "hipErrorNotFound";
    case hipErrorNotReady: return "hipErrorNotReady";
    case hipErrorIllegalAddress: return "hipErrorIllegalAddress";
    case hipErrorHostMemoryAlreadyRegistered: return "hipErrorHostMemoryAlreadyRegistered";
    case hipErrorHostMemoryNotRegistered: return "hipErrorHostMemoryNotRegistered";
    case hipErrorLaunchFailure: return "hipErrorLaunchFailure";
    case hipErrorNotSupported: return "hipErrorNotSupported";
  }
  return "hipErrorUnknown";
}

// The driver puts this text into its status, so that a fault explains itself there too.
HIP_API const char *hipGetErrorString(hipError_t error) {
  return error != hipSuccess && error == last_error ? last_fault : hipGetErrorName(error);
}

HIP_API hipError_t hipGetLastError(void) { return hipSuccess; }

// ---- Devices and contexts ----

HIP_API hipError_t hipInit(unsigned flags) {
  for (int i = 0; i < kDeviceCount; ++i) contexts[i].device = &devices[i];
  return flags ? hipErrorInvalidValue : hipSuccess;
}

// Whoever asks the driver for "hip" wants a real GPU: only a thread that says so finds the emulated devices.
static _Thread_local bool devices_visible;
HIP_API void emulator_show_devices(bool visible) { devices_visible = visible; }

HIP_API hipError_t hipGetDeviceCount(int *count) {
  *count = devices_visible ? kDeviceCount : 0;
  return devices_visible ? hipSuccess : hipErrorNoDevice;
}

static const struct Device *device_at(int ordinal) {
  return ordinal >= 0 && ordinal < kDeviceCount ? &devices[ordinal] : NULL;
}

HIP_API hipError_t hipDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return device_at(ordinal) ? hipSuccess : hipErrorInvalidDevice;
}

HIP_API hipError_t hipSetDevice(unsigned ordinal) {
  if (!device_at((int)ordinal)) return hipErrorInvalidDevice;
  current = device_at((int)ordinal);
  return hipSuccess;
}

HIP_API hipError_t hipDeviceGetName(char *name, int capacity, int ordinal) {
  if (!device_at(ordinal)) return hipErrorInvalidDevice;
  snprintf(name, (size_t)capacity, "%s", device_at(ordinal)->name);
  return hipSuccess;
}

HIP_API hipError_t hipDeviceGetUuid(char uuid[16], int ordinal) {
  const struct Device *device = device_at(ordinal);
  if (!device) return hipErrorInvalidDevice;
  memset(uuid, 0, 16);
  memcpy(uuid, "emulated", 8);
  memcpy(uuid + 8, device->arch, 6);
  uuid[14] = device->strict ? 's' : 'f';
  return hipSuccess;
}

HIP_API hipError_t hipGetDeviceProperties(hipDeviceProp_tR0000 *properties, int ordinal) {
  const struct Device *device = device_at(ordinal);
  if (!device) return hipErrorInvalidDevice;
  *properties = (hipDeviceProp_tR0000){
      .totalGlobalMem = kTotalMemory,
      .sharedMemPerBlock = (size_t)device->lds_bytes,
      .regsPerBlock = 65536,
      .warpSize = 64,
      .maxThreadsPerBlock = 1024,
      .maxThreadsDim = {1024, 1024, 1024},
      .maxGridSize = {2147483647, 65535, 65535},
      .clockRate = device->clock_kilohertz,
      .totalConstMem = 2147483647,
      .major = device->major,
      .minor = device->minor,
      .multiProcessorCount = device->compute_units,
      .l2CacheSize = device->l2_bytes,
      .maxThreadsPerMultiProcessor = 2048,
      .concurrentKernels = 1,
      .maxSharedMemoryPerMultiProcessor = (size_t)device->lds_bytes,
      .canMapHostMemory = 1,
      .managedMemory = 1,
      .concurrentManagedAccess = 1,
  };
  snprintf(properties->name, sizeof properties->name, "%s", device->name);
  snprintf(properties->gcnArchName, sizeof properties->gcnArchName, "%s:sramecc+:xnack-", device->arch);
  return hipSuccess;
}

HIP_API hipError_t hipDeviceGetAttribute(int *value, int attribute, int ordinal) {
  const struct Device *device = device_at(ordinal);
  if (!device) return hipErrorInvalidDevice;
  switch (attribute) {
    case hipDeviceAttributeCanMapHostMemory:
    case hipDeviceAttributeConcurrentKernels:
    case hipDeviceAttributeConcurrentManagedAccess:
    case hipDeviceAttributeManagedMemory:
    case hipDeviceAttributeUnifiedAddressing:
    case hipDeviceAttributeMemoryPoolsSupported:
    case hipDeviceAttributeHostRegisterSupported: *value = 1; return hipSuccess;
    case hipDeviceAttributeCooperativeLaunch:
    case hipDeviceAttributeIntegrated:
    case hipDeviceAttributePageableMemoryAccess:
    case hipDeviceAttributeVirtualMemoryManagementSupported: *value = 0; return hipSuccess;
    case hipDeviceAttributeClockRate: *value = device->clock_kilohertz; return hipSuccess;
    case hipDeviceAttributeL2CacheSize: *value = device->l2_bytes; return hipSuccess;
    case hipDeviceAttributeComputeCapabilityMajor: *value = device->major; return hipSuccess;
    case hipDeviceAttributeComputeCapabilityMinor: *value = device->minor; return hipSuccess;
    case hipDeviceAttributeMaxBlockDimX:
    case hipDeviceAttributeMaxBlockDimY:
    case hipDeviceAttributeMaxBlockDimZ:
    case hipDeviceAttributeMaxThreadsPerBlock: *value = 1024; return hipSuccess;
    case hipDeviceAttributeMaxGridDimX: *value = 2147483647; return hipSuccess;
    case hipDeviceAttributeMaxGridDimY:
    case hipDeviceAttributeMaxGridDimZ: *value = 65535; return hipSuccess;
    case hipDeviceAttributeMaxThreadsPerMultiProcessor: *value = 2048; return hipSuccess;
    case hipDeviceAttributeMultiprocessorCount: *value = device->compute_units; return hipSuccess;
    case hipDeviceAttributeMaxSharedMemoryPerBlock:
    case hipDeviceAttributeMaxSharedMemoryPerMultiprocessor:
    case hipDeviceAttributeSharedMemPerMultiprocessor: *value = device->lds_bytes; return hipSuccess;
    case hipDeviceAttributeWarpSize: *value = 64; return hipSuccess;
  }
  char call[64];
  snprintf(call, sizeof call, "hipDeviceGetAttribute(%d)", attribute);
  return unsupported(call);
}

HIP_API hipError_t hipDevicePrimaryCtxRetain(hipCtx_t *context, int ordinal) {
  if (!device_at(ordinal)) return hipErrorInvalidDevice;
  *context = &contexts[ordinal];
  return hipSuccess;
}

HIP_API hipError_t hipDevicePrimaryCtxRelease(int ordinal) {
  return device_at(ordinal) ? hipSuccess : hipErrorInvalidDevice;
}

HIP_API hipError_t hipCtxSetCurrent(hipCtx_t context) {
  current = context ? context->device : NULL;
  return hipSuccess;
}

HIP_API hipError_t hipCtxGetCurrent(hipCtx_t *context) {
  *context = current ? &contexts[current->ordinal] : NULL;
  return hipSuccess;
}

// Contexts saved by hipCtxPushCurrent, per thread.
enum { MOST_PUSHED = 4096 };  // the driver pushes once per loaded kernel and pops late
static _Thread_local const struct Device *pushed[MOST_PUSHED];
static _Thread_local int pushed_count;

HIP_API hipError_t hipCtxPushCurrent(hipCtx_t context) {
  if (pushed_count == MOST_PUSHED) return hipErrorInvalidContext;
  pushed[pushed_count++] = current;
  return hipCtxSetCurrent(context);
}

HIP_API hipError_t hipCtxPopCurrent(hipCtx_t *context) {
  if (!pushed_count) return hipErrorInvalidContext;
  if (context) hipCtxGetCurrent(context);
  current = pushed[--pushed_count];
  return hipSuccess;
}

HIP_API hipError_t hipDeviceCanAccessPeer(int *can_access, int ordinal, int peer) {
  if (!device_at(ordinal) || !device_at(peer)) return hipErrorInvalidDevice;
  *can_access = 0;
  return hipSuccess;
}

HIP_API hipError_t hipDeviceEnablePeerAccess(int peer, unsigned flags) {
  (void)peer, (void)flags;
  return unsupported("hipDeviceEnablePeerAccess");
}
