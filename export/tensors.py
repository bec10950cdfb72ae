"""torch tensors as NumPy arrays, FP8 and bfloat16 included."""

import ml_dtypes
import numpy as np
import torch

_DTYPES = {
    torch.bfloat16: ml_dtypes.bfloat16,
    torch.float8_e4m3fn: ml_dtypes.float8_e4m3fn,
    torch.float8_e4m3fnuz: ml_dtypes.float8_e4m3fnuz,
}


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The same values and shape; shares memory where ``tensor`` is contiguous on the CPU."""
    tensor = tensor.detach().contiguous()
    if tensor.dtype not in _DTYPES:
        return tensor.numpy()
    return tensor.view(torch.uint8).numpy().view(_DTYPES[tensor.dtype]).reshape(tensor.shape)
