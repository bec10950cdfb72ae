// Streams, events and host functions. Device work runs inside the call that submits it; only host functions
// run on a thread of their own, because a caller may hold a lock that its host function takes.
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "device.h"

struct HostFunction {
  hipHostFn_t function;
  void *argument;
  struct HostFunction *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct HostFunction *first, *last;
static uint64_t submitted, completed;
static bool worker_started;
static _Thread_local bool is_worker;

static void *run_host_functions(void *unused) {
  (void)unused;
  is_worker = true;
  pthread_mutex_lock(&lock);
  for (;;) {
    while (!first) pthread_cond_wait(&changed, &lock);
    struct HostFunction *next = first;
    first = next->next;
    if (!first) last = NULL;
    pthread_mutex_unlock(&lock);
    next->function(next->argument);
    free(next);
    pthread_mutex_lock(&lock);
    ++completed;
    pthread_cond_broadcast(&changed);
  }
  return NULL;
}

HIP_API hipError_t hipLaunchHostFunc(hipStream_t stream, hipHostFn_t function, void *argument) {
  (void)stream;
  struct HostFunction *entry = malloc(sizeof *entry);
  if (!entry) return hipErrorOutOfMemory;
  *entry = (struct HostFunction){function, argument, NULL};
  pthread_mutex_lock(&lock);
  if (!worker_started) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, run_host_functions, NULL)) {
      pthread_mutex_unlock(&lock);
      free(entry);
      return hipErrorOutOfMemory;
    }
    pthread_detach(thread);
    worker_started = true;
  }
  if (last) last->next = entry;
  else first = entry;
  last = entry;
  ++submitted;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&lock);
  return hipSuccess;
}

static void wait_for(uint64_t ticket) {
  if (is_worker) return;  // A host function that calls back must not wait for itself.
  pthread_mutex_lock(&lock);
  while (completed < ticket) pthread_cond_wait(&changed, &lock);
  pthread_mutex_unlock(&lock);
}

static uint64_t last_ticket(void) {
  pthread_mutex_lock(&lock);
  uint64_t ticket = submitted;
  pthread_mutex_unlock(&lock);
  return ticket;
}

void stream_wait_host_functions(void) { wait_for(last_ticket()); }

HIP_API hipError_t hipStreamCreateWithFlags(hipStream_t *stream, unsigned flags) {
  (void)flags;
  *stream = malloc(sizeof **stream);
  if (!*stream) return hipErrorOutOfMemory;
  (*stream)->device = device_current();
  return hipSuccess;
}

HIP_API hipError_t hipStreamDestroy(hipStream_t stream) {
  stream_wait_host_functions();
  free(stream);
  return hipSuccess;
}

HIP_API hipError_t hipStreamSynchronize(hipStream_t stream) {
  (void)stream;
  stream_wait_host_functions();
  return hipSuccess;
}

// ---- Events ----

struct Event {
  uint64_t ticket;  // Host functions that must have run before the event is reached.
  double milliseconds;
};

HIP_API hipError_t hipEventCreateWithFlags(hipEvent_t *event, unsigned flags) {
  (void)flags;
  *event = calloc(1, sizeof **event);
  return *event ? hipSuccess : hipErrorOutOfMemory;
}

HIP_API hipError_t hipEventCreate(hipEvent_t *event) { return hipEventCreateWithFlags(event, 0); }

HIP_API hipError_t hipEventDestroy(hipEvent_t event) {
  free(event);
  return hipSuccess;
}

HIP_API hipError_t hipEventRecord(hipEvent_t event, hipStream_t stream) {
  (void)stream;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  event->milliseconds = (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
  event->ticket = last_ticket();
  return hipSuccess;
}

HIP_API hipError_t hipEventQuery(hipEvent_t event) {
  pthread_mutex_lock(&lock);
  bool reached = completed >= event->ticket;
  pthread_mutex_unlock(&lock);
  return reached ? hipSuccess : hipErrorNotReady;
}

HIP_API hipError_t hipEventSynchronize(hipEvent_t event) {
  wait_for(event->ticket);
  return hipSuccess;
}

HIP_API hipError_t hipEventElapsedTime(float *milliseconds, hipEvent_t start, hipEvent_t stop) {
  *milliseconds = (float)(stop->milliseconds - start->milliseconds);
  return hipSuccess;
}

HIP_API hipError_t hipStreamWaitEvent(hipStream_t stream, hipEvent_t event, unsigned flags) {
  (void)stream, (void)flags;
  wait_for(event->ticket);
  return hipSuccess;
}
