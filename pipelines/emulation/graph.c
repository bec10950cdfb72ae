// Graphs: nodes run in the order in which they were added, which respects every dependency.
#include <stdlib.h>
#include <string.h>

#include "device.h"

enum NodeKind { kNodeEmpty, kNodeKernel, kNodeFill, kNodeCopy, kNodeEvent };

struct GraphNode {
  enum NodeKind kind;
  struct GraphNode *next;
  struct Kernel *kernel;
  dim3 grid, block;
  uint32_t dynamic_lds;
  void **parameters;  // Pointers into `values`: the caller's arguments may change after the node is added.
  char *values;
  hipMemsetParams fill;
  HIP_MEMCPY3D copy;
  hipEvent_t event;
};

// Nodes are shared by a graph and its instances, each of which may be destroyed first.
struct NodeList {
  int owners;
  struct GraphNode *first, *last;
};

struct Graph {
  struct NodeList *nodes;
};

hipError_t hipMemsetD8Async(void *, unsigned char, size_t, hipStream_t);
hipError_t hipMemsetD16Async(void *, unsigned short, size_t, hipStream_t);
hipError_t hipMemsetD32Async(void *, int, size_t, hipStream_t);
hipError_t hipMemcpyAsync(void *, const void *, size_t, hipMemcpyKind, hipStream_t);
hipError_t hipModuleLaunchKernel(hipFunction_t, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                                 unsigned, hipStream_t, void **, void **);
hipError_t hipEventRecord(hipEvent_t, hipStream_t);

static hipError_t create(hipGraph_t *graph, struct NodeList *nodes) {
  *graph = calloc(1, sizeof **graph);
  if (!*graph || !nodes) return hipErrorOutOfMemory;
  (*graph)->nodes = nodes;
  ++nodes->owners;
  return hipSuccess;
}

static hipError_t destroy(hipGraph_t graph) {
  struct NodeList *nodes = graph->nodes;
  free(graph);
  if (--nodes->owners) return hipSuccess;
  for (struct GraphNode *node = nodes->first, *next; node; node = next) {
    next = node->next;
    free(node->parameters);
    free(node->values);
    free(node);
  }
  free(nodes);
  return hipSuccess;
}

HIP_API hipError_t hipGraphCreate(hipGraph_t *graph, unsigned flags) {
  (void)flags;
  return create(graph, calloc(1, sizeof(struct NodeList)));
}

HIP_API hipError_t hipGraphDestroy(hipGraph_t graph) { return destroy(graph); }

HIP_API hipError_t hipGraphInstantiate(hipGraphExec_t *instance, hipGraph_t graph, hipGraphNode_t *error_node,
                                       char *log, size_t log_size) {
  (void)error_node, (void)log, (void)log_size;
  return create(instance, graph->nodes);
}

HIP_API hipError_t hipGraphExecDestroy(hipGraphExec_t instance) { return destroy(instance); }

static struct GraphNode *add(hipGraph_t graph, hipGraphNode_t *out, enum NodeKind kind) {
  struct GraphNode *node = calloc(1, sizeof *node);
  if (!node) return NULL;
  node->kind = kind;
  struct NodeList *nodes = graph->nodes;
  if (nodes->last) nodes->last->next = node;
  else nodes->first = node;
  nodes->last = node;
  *out = node;
  return node;
}

HIP_API hipError_t hipGraphAddEmptyNode(hipGraphNode_t *out, hipGraph_t graph,
                                        const hipGraphNode_t *dependencies, size_t dependency_count) {
  (void)dependencies, (void)dependency_count;
  return add(graph, out, kNodeEmpty) ? hipSuccess : hipErrorOutOfMemory;
}

HIP_API hipError_t hipGraphAddEventRecordNode(hipGraphNode_t *out, hipGraph_t graph,
                                              const hipGraphNode_t *dependencies, size_t dependency_count,
                                              hipEvent_t event) {
  (void)dependencies, (void)dependency_count;
  struct GraphNode *node = add(graph, out, kNodeEvent);
  if (!node) return hipErrorOutOfMemory;
  node->event = event;
  return hipSuccess;
}

HIP_API hipError_t hipGraphAddKernelNode(hipGraphNode_t *out, hipGraph_t graph,
                                         const hipGraphNode_t *dependencies, size_t dependency_count,
                                         const hipKernelNodeParams *params) {
  (void)dependencies, (void)dependency_count;
  if (params->extra) return unsupported("hipGraphAddKernelNode with packed arguments");
  struct GraphNode *node = add(graph, out, kNodeKernel);
  if (!node) return hipErrorOutOfMemory;
  node->kernel = params->func;
  node->grid = params->gridDim;
  node->block = params->blockDim;
  node->dynamic_lds = params->sharedMemBytes;
  uint32_t count = node->kernel->argument_count;
  node->parameters = calloc(count + 1, sizeof *node->parameters);
  node->values = calloc(node->kernel->argument_bytes + 1, 1);
  if (!node->parameters || !node->values) return hipErrorOutOfMemory;
  for (uint32_t i = 0, visible = 0; i < count; ++i) {
    const struct Argument *argument = &node->kernel->arguments[i];
    if (argument->kind != kArgumentValue) continue;
    node->parameters[visible] = node->values + argument->offset;
    memcpy(node->parameters[visible], params->kernelParams[visible], argument->size);
    ++visible;
  }
  return hipSuccess;
}

HIP_API hipError_t hipGraphAddMemsetNode(hipGraphNode_t *out, hipGraph_t graph,
                                         const hipGraphNode_t *dependencies, size_t dependency_count,
                                         const hipMemsetParams *params) {
  (void)dependencies, (void)dependency_count;
  if (params->height > 1) return unsupported("hipGraphAddMemsetNode with more than one row");
  struct GraphNode *node = add(graph, out, kNodeFill);
  if (!node) return hipErrorOutOfMemory;
  node->fill = *params;
  return hipSuccess;
}

HIP_API hipError_t hipDrvGraphAddMemcpyNode(hipGraphNode_t *out, hipGraph_t graph,
                                            const hipGraphNode_t *dependencies, size_t dependency_count,
                                            const HIP_MEMCPY3D *params, hipCtx_t context) {
  (void)dependencies, (void)dependency_count, (void)context;
  if (params->Height > 1 || params->Depth > 1)
    return unsupported("hipDrvGraphAddMemcpyNode with more than one row");
  struct GraphNode *node = add(graph, out, kNodeCopy);
  if (!node) return hipErrorOutOfMemory;
  node->copy = *params;
  return hipSuccess;
}

static hipError_t run(const struct GraphNode *node, hipStream_t stream) {
  switch (node->kind) {
    case kNodeEmpty: return hipSuccess;
    case kNodeEvent: return hipEventRecord(node->event, stream);
    case kNodeKernel:
      return hipModuleLaunchKernel(node->kernel, node->grid.x, node->grid.y, node->grid.z, node->block.x,
                                   node->block.y, node->block.z, node->dynamic_lds, stream, node->parameters,
                                   NULL);
    case kNodeFill: {
      const hipMemsetParams *fill = &node->fill;
      if (fill->elementSize == 1)
        return hipMemsetD8Async(fill->dst, (unsigned char)fill->value, fill->width, stream);
      if (fill->elementSize == 2)
        return hipMemsetD16Async(fill->dst, (unsigned short)fill->value, fill->width, stream);
      return hipMemsetD32Async(fill->dst, (int)fill->value, fill->width, stream);
    }
    case kNodeCopy: {
      const HIP_MEMCPY3D *copy = &node->copy;
      const char *source = copy->srcDevice ? copy->srcDevice : copy->srcHost;
      char *target = copy->dstDevice ? copy->dstDevice : copy->dstHost;
      hipMemcpyKind kind = copy->srcDevice
                               ? (copy->dstDevice ? hipMemcpyDeviceToDevice : hipMemcpyDeviceToHost)
                               : (copy->dstDevice ? hipMemcpyHostToDevice : hipMemcpyHostToHost);
      return hipMemcpyAsync(target + copy->dstXInBytes, source + copy->srcXInBytes, copy->WidthInBytes, kind,
                            stream);
    }
  }
  return hipErrorInvalidValue;
}

HIP_API hipError_t hipGraphLaunch(hipGraphExec_t instance, hipStream_t stream) {
  for (const struct GraphNode *node = instance->nodes->first; node; node = node->next) {
    hipError_t error = run(node, stream);
    if (error) return error;
  }
  return hipSuccess;
}
