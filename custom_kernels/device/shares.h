// Steps of a loop divided among waves, or other sharers, in equal shares of which the last may be short.
#pragma once

// Whether step `step` of a share of `steps` is past the end of all `count` for some of the `sharers`: known when
// compiled, so that no other step needs a branch.
constexpr bool past_some_end(int sharers, int steps, int count, int step) {
  return (sharers - 1) * steps + step >= count;
}
