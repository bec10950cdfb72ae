"""Unquantised matrix multiplication with a float32 result: the router's scores, the indexer's head gates, logits.

Source: `torch.nn.functional.linear` on bfloat16, but the sum is returned as it is accumulated, in float32.
"""

import torch

from predecode.custom_kernels.clustered_launch import in_clusters
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.skinny_tile import THREADS, float_split_tile, float_tile
from predecode.custom_kernels.targets import Target

FRAGMENT = 32
"""Columns that a wave multiplies in one step."""
CPU_OUTPUTS = 16
"""Weight rows of one CPU workgroup."""


def reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x.float() @ weight.float().T


def _fake(x, weight):
    return x.new_empty((x.shape[0], weight.shape[0]), dtype=torch.float32)


def _launch(target: Target, call: Call) -> Launch | None:
    rows, columns = call["x"].shape
    outputs = call["weight"].shape[0]
    if not target.has_hip_kernels:
        return Launch(
            source="linear_bf16.cpp",
            symbol="linear_bf16",
            operands=("x", "weight"),
            constants=(rows, outputs, columns),
            workgroups=(-(-outputs // CPU_OUTPUTS), 1, 1),
        )
    tile = float_tile(target, rows, outputs, columns)
    launch = Launch(
        source="linear_bf16.hip",
        symbol="linear_bf16",
        operands=("x", "weight"),
        constants=(outputs,),
        workgroups=tile.workgroups(target, rows, outputs),
        workgroup_size=(THREADS, 1, 1),
        defines=(("ROWS", rows), ("COLUMNS", columns), ("OUTPUTS", tile.outputs), *tile.defines),
    )
    split = float_split_tile(target, rows, outputs, columns)
    if split is None:
        return launch
    return in_clusters(launch, split, "linear_bf16_split.hip", outputs, rows, columns)


OP = define_op("linear_bf16(Tensor x, Tensor weight) -> Tensor", reference, _fake, launch=_launch)


def linear_bf16(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """``y[t, n] = sum_k x[t, k] * weight[n, k]``, float32 [T, N], summed in float32.

    ``x`` [T, K] and ``weight`` [N, K] are row-major, both bfloat16 (or both float32, where quantisation is off),
    K a multiple of 32.
    """
    dtypes = (torch.bfloat16, torch.float32)
    fits = x.dim() == weight.dim() == 2 and x.shape[1] == weight.shape[1] and x.shape[1] % FRAGMENT == 0
    if not fits or x.dtype != weight.dtype or x.dtype not in dtypes:
        raise TypeError(
            f"linear_bf16: x is {x.dtype} {list(x.shape)}, weight {weight.dtype} {list(weight.shape)}; expected "
            f"[T, K] and [N, K] of one dtype, bfloat16 or float32, with K a multiple of {FRAGMENT}"
        )
    return torch.ops.predecode.linear_bf16(x, weight)
