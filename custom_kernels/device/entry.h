// What a generated entry needs to call an op's body: its workgroup memory, and pointers of any type.
#pragma once

#include "grid.h"

// Bytes of workgroup memory that a body asks for by its second parameter.
template <typename Place, typename... Arguments> constexpr int shared_bytes(void (*)(Place, Arguments...)) { return 0; }
template <typename Place, typename Shared, typename... Arguments>
constexpr int shared_bytes(void (*)(Place, Shared &, Arguments...)) {
  return sizeof(Shared);
}

// The alignment of that memory.
template <typename Place, typename... Arguments> constexpr int shared_alignment(void (*)(Place, Arguments...)) {
  return 16;
}
template <typename Place, typename Shared, typename... Arguments>
constexpr int shared_alignment(void (*)(Place, Shared &, Arguments...)) {
  return alignof(Shared) > 16 ? alignof(Shared) : 16;
}

static constexpr int largest(int value) { return value; }
template <typename... Values> static constexpr int largest(int first, Values... others) {
  return first > largest(others...) ? first : largest(others...);
}

// A buffer as the launch passes it; the body's parameter gives it its type.
struct Buffer {
  void *address;
  template <typename T> MEMBER operator T *() const { return (T *)address; }
};

// Workgroup `index` of a grid of `x` * `y` * z workgroups.
DEVICE Workgroup workgroup_of(int index, int x, int y, bool posts) {
  return {index % x, index / x % y, index / (x * y), posts};
}

// `workgroup` as a body takes it that waits itself, or when `earlier` has ended. When the body has returned, `earlier` is
// left with `seen_before`.
template <typename Place> DEVICE Place place_of(Workgroup workgroup, EarlierPhase earlier, uint32 &seen_before) {
  if constexpr (__is_same(Place, EarlyWorkgroup)) return {workgroup, earlier, seen_before};
  else {
    seen_before = earlier.wait();
    return workgroup;
  }
}

// Calls `body` with its part of the workgroup memory at `memory`, if it has any.
template <typename Place, typename... Parameters, typename... Arguments>
DEVICE void call_body(void (*body)(Place, Parameters...), void *memory, Workgroup workgroup, EarlierPhase earlier,
                      Arguments... arguments) {
  uint32 seen_before = 0;
  body(place_of<Place>(workgroup, earlier, seen_before), arguments...);
  earlier.leave(seen_before);
}
template <typename Place, typename Shared, typename... Parameters, typename... Arguments>
DEVICE void call_body(void (*body)(Place, Shared &, Parameters...), void *memory, Workgroup workgroup,
                      EarlierPhase earlier, Arguments... arguments) {
  uint32 seen_before = 0;
  body(place_of<Place>(workgroup, earlier, seen_before), *(Shared *)memory, arguments...);
  earlier.leave(seen_before);
}
