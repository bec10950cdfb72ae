// What a generated entry needs to call an op's body: its workgroup memory, and pointers of any type.
#pragma once

#include "compiler.h"

// Bytes of workgroup memory that a body asks for by its second parameter.
template <typename... Arguments> constexpr int shared_bytes(void (*)(Workgroup, Arguments...)) { return 0; }
template <typename Shared, typename... Arguments>
constexpr int shared_bytes(void (*)(Workgroup, Shared &, Arguments...)) {
  return sizeof(Shared);
}

static constexpr int largest(int value) { return value; }
template <typename... Values> static constexpr int largest(int first, Values... others) {
  return first > largest(others...) ? first : largest(others...);
}

// A buffer as the launch passes it; the body's parameter gives it its type.
struct Buffer {
  void *address;
  template <typename T> __attribute__((device, always_inline)) operator T *() const { return (T *)address; }
};

// Workgroup `index` of a grid of `x` * `y` * z workgroups.
DEVICE Workgroup workgroup_of(int index, int x, int y) { return {index % x, index / x % y, index / (x * y)}; }

// Calls `body` with its part of the workgroup memory at `memory`, if it has any.
template <typename... Parameters, typename... Arguments>
DEVICE void call_body(void (*body)(Workgroup, Parameters...), void *memory, Workgroup workgroup,
                      Arguments... arguments) {
  body(workgroup, arguments...);
}
template <typename Shared, typename... Parameters, typename... Arguments>
DEVICE void call_body(void (*body)(Workgroup, Shared &, Parameters...), void *memory, Workgroup workgroup,
                      Arguments... arguments) {
  body(workgroup, *(Shared *)memory, arguments...);
}
