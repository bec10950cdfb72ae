"""Checks of an op's arguments that name what was given and what was expected."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.layouts import GROUP


def require_tensor(
    op: str, argument: str, tensor: torch.Tensor, dtype: torch.dtype, shape: tuple[int | str, ...]
) -> None:
    """Refuse ``tensor`` unless it has ``dtype`` and ``shape``; a string in ``shape`` names a free size."""
    fits = len(tensor.shape) == len(shape) and all(
        isinstance(expected, str) or size == expected for size, expected in zip(tensor.shape, shape, strict=True)
    )
    if tensor.dtype != dtype or not fits:
        raise ValueError(
            f"{op}: {argument} is {tensor.dtype} {list(tensor.shape)}, expected {dtype} "
            f"[{', '.join(str(size) for size in shape)}]"
        )


def require_groups(op: str, argument: str, columns: int) -> None:
    """Refuse a number of ``columns`` that does not divide into quantisation groups."""
    if columns == 0 or columns % GROUP:
        raise ValueError(f"{op}: {argument} has {columns} columns, expected a multiple of {GROUP}; pad it")


def require_rows_in_groups(op: str, argument: str, x: torch.Tensor, element_format: ElementFormat) -> None:
    """Refuse ``x`` unless it is [T, N] in the format's activation dtype, N a multiple of 128."""
    require_tensor(op, argument, x, element_format.activation_dtype, ("T", "N"))
    require_groups(op, argument, x.shape[1])
