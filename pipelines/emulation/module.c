// Modules: loading goes through the loader that the host program registered, which translates the machine
// code.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "device.h"
#include "memory.h"

static ModuleLoader loader;
static ModuleDropper dropper;

// Both are NULL once the host program can no longer be called.
HIP_API void emulator_set_module_loader(ModuleLoader new_loader, ModuleDropper new_dropper) {
  loader = new_loader;
  dropper = new_dropper;
}

// Maps zeroed device memory for a code object; NULL if there is none.
HIP_API void *emulator_place_image(size_t size) {
  void *image = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (image == MAP_FAILED) return NULL;
  if (memory_register(image, size, "code object")) return image;
  munmap(image, size);
  return NULL;
}

static void drop_image(struct Module *module) {
  if (!module->image) return;
  memory_unregister(module->image);
  munmap(module->image, module->image_bytes);
}

HIP_API hipError_t hipModuleLoadData(hipModule_t *module, const void *image) {
  *module = NULL;
  if (!loader)
    return fault_set(hipErrorInvalidImage,
                     "no translator of code objects is registered with the emulated HIP device");
  struct Module *loaded = calloc(1, sizeof *loaded);
  if (!loaded) return hipErrorOutOfMemory;
  if (loader(device_current(), image, loaded)) {
    drop_image(loaded);
    free(loaded);
    return hipErrorInvalidImage;
  }
  *module = loaded;
  return hipSuccess;
}

HIP_API hipError_t hipModuleLoadDataEx(hipModule_t *module, const void *image, unsigned option_count,
                                       void *options, void **values) {
  (void)option_count, (void)options, (void)values;
  return hipModuleLoadData(module, image);
}

HIP_API hipError_t hipModuleUnload(hipModule_t module) {
  if (!module) return hipErrorInvalidHandle;
  drop_image(module);
  if (dropper) dropper(module->token);
  free(module);
  return hipSuccess;
}

HIP_API hipError_t hipModuleGetFunction(hipFunction_t *function, hipModule_t module, const char *name) {
  *function = NULL;
  for (uint32_t i = 0; i < module->kernel_count; ++i)
    if (!strcmp(module->kernels[i].name, name)) {
      *function = &module->kernels[i];
      return hipSuccess;
    }
  char names[1024] = "";
  size_t used = 0;
  for (uint32_t i = 0; i < module->kernel_count && used < sizeof names - 1; ++i)
    used +=
        (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", module->kernels[i].name);
  return fault_set(hipErrorNotFound, "kernel %s is not in the code object, which has: %s", name, names);
}

HIP_API hipError_t hipModuleGetGlobal(void **pointer, size_t *size, hipModule_t module, const char *name) {
  for (uint32_t i = 0; i < module->variable_count; ++i)
    if (!strcmp(module->variables[i].name, name)) {
      if (pointer) *pointer = (void *)(uintptr_t)module->variables[i].address;
      if (size) *size = module->variables[i].size;
      return hipSuccess;
    }
  return hipErrorNotFound;
}

enum {
  HIP_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK = 0,
  HIP_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES = 1,
  HIP_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES = 3,
  HIP_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8,
};

HIP_API hipError_t hipFuncGetAttribute(int *value, int attribute, const void *function) {
  const struct Kernel *kernel = function;
  switch (attribute) {
    case HIP_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
      *value = (int)kernel->max_workgroup_size;
      return hipSuccess;
    case HIP_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: *value = (int)kernel->lds_bytes; return hipSuccess;
    case HIP_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES: *value = (int)kernel->scratch_bytes; return hipSuccess;
    case HIP_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
      *value = kernel->device->lds_bytes - (int)kernel->lds_bytes;
      return hipSuccess;
  }
  return unsupported("hipFuncGetAttribute");
}

HIP_API hipError_t hipFuncSetAttribute(const void *function, int attribute, int value) {
  const struct Kernel *kernel = function;
  if (attribute != HIP_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES)
    return unsupported("hipFuncSetAttribute");
  if (value < 0 || (int)kernel->lds_bytes + value > kernel->device->lds_bytes)
    return fault_set(hipErrorInvalidValue,
                     "kernel %s: %d bytes of dynamic LDS beside %u static ones exceed the %d of %s",
                     kernel->name, value, kernel->lds_bytes, kernel->device->lds_bytes, kernel->device->arch);
  return hipSuccess;
}

static hipError_t launch(struct Kernel *kernel, dim3 grid, dim3 block, size_t dynamic_lds,
                         void **parameters) {
  stream_wait_host_functions();
  return kernel ? launch_kernel(kernel, grid, block, (uint32_t)dynamic_lds, parameters)
                : hipErrorInvalidHandle;
}

HIP_API hipError_t hipModuleLaunchKernel(hipFunction_t function, unsigned grid_x, unsigned grid_y,
                                         unsigned grid_z, unsigned block_x, unsigned block_y,
                                         unsigned block_z, unsigned dynamic_lds, hipStream_t stream,
                                         void **parameters, void **extra) {
  (void)stream;
  if (extra) return unsupported("hipModuleLaunchKernel with packed arguments");
  return launch(function, (dim3){grid_x, grid_y, grid_z}, (dim3){block_x, block_y, block_z}, dynamic_lds,
                parameters);
}

HIP_API hipError_t hipLaunchKernel(const void *function, dim3 grid, dim3 block, void **parameters,
                                   size_t dynamic_lds, hipStream_t stream) {
  (void)stream;
  return launch((struct Kernel *)function, grid, block, dynamic_lds, parameters);
}
