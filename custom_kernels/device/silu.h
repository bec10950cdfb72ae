// The gate of the MLPs.
#pragma once

#include "bf16.h"
#include "float_math.h"

// silu(gate) * up as a bf16 tensor would hold it.
DEVICE bf16 silu_mul(float gate, float up) { return to_bf16(gate / (1.0f + exponential(-gate)) * up); }
