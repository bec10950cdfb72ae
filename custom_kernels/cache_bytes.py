"""Elements and float32 scales as bytes of an int8 cache, in plain torch that every backend compiles.

All values are little-endian. Caches are int8 because the compiler can bitcast only between equal widths and
cannot scatter into uint8.
"""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.layouts import INDEXER_HEAD_DIM, PAGE_TOKENS, IndexerPage


def float32_to_bytes(x: torch.Tensor) -> torch.Tensor:
    """float32 [..., n] -> int8 [..., n * 4]."""
    shifts = torch.arange(0, 32, 8, dtype=torch.int32, device=x.device)
    words = torch.bitwise_right_shift(x.view(torch.int32)[..., None], shifts)
    return (words & 255).to(torch.int8).flatten(-2)


def bytes_to_float32(data: torch.Tensor) -> torch.Tensor:
    """int8 [..., n * 4] -> float32 [..., n]."""
    shifts = torch.arange(0, 32, 8, dtype=torch.int32, device=data.device)
    words = torch.bitwise_left_shift(data.unflatten(-1, (-1, 4)).to(torch.int32) & 255, shifts)
    return words.sum(-1, dtype=torch.int32).view(torch.float32)


def elements_to_bytes(values: torch.Tensor) -> torch.Tensor:
    """FP8 or float32 [..., n] -> int8 [..., n * itemsize]."""
    if values.dtype.itemsize == 1:
        return values.view(torch.int8)
    return float32_to_bytes(values)


def bytes_to_elements(data: torch.Tensor, element_format: ElementFormat) -> torch.Tensor:
    """int8 [..., n * itemsize] -> [..., n] in the format; ``data`` must be contiguous."""
    if element_format.itemsize == 1:
        return data.view(element_format.dtype)
    return bytes_to_float32(data)


def page_and_token(slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(page, token in the page) of each slot, int64; the padding slot -1 becomes slot 0."""
    valid = slots.clamp_min(0)
    return valid // PAGE_TOKENS, valid % PAGE_TOKENS


def key_byte_offsets(page: IndexerPage, tokens: torch.Tensor, itemsize: int) -> torch.Tensor:
    """Where, within its page, each byte of the keys of ``tokens`` [T] lies: int64 [T, 128 * itemsize]."""
    byte = torch.arange(INDEXER_HEAD_DIM * itemsize, device=tokens.device)
    return page.key_offset(tokens[:, None], byte // itemsize, itemsize) + byte % itemsize


def scale_byte_offsets(page: IndexerPage, tokens: torch.Tensor, itemsize: int) -> torch.Tensor:
    """Where, within its page, each byte of the scales of ``tokens`` [T] lies: int64 [T, 4]."""
    return page.scale_offset(tokens[:, None], itemsize) + torch.arange(4, device=tokens.device)


def write_bytes(cache: torch.Tensor, slots: torch.Tensor, positions: torch.Tensor, data: torch.Tensor) -> torch.Tensor:
    """The cache after each row has stored its ``data`` int8 [T, n] at ``positions`` int64 [T, n] of the pool.

    ``cache`` int8 [pages, page bytes]; ``slots`` int64 [T], where a row with slot -1 stores nothing (its
    positions may be anywhere inside the pool).
    """
    # A padding row repeats the store of the last real row. With no real row, nothing may change: a minimum
    # then a maximum store a byte without reading the old one first, which would make the compiler copy the
    # cache, and with the outermost values they leave it alone. Both may be applied twice.
    rows = torch.arange(slots.shape[0], device=slots.device)
    last = torch.where(slots >= 0, rows, -1).amax()
    source = torch.where(slots >= 0, rows, last.clamp_min(0))
    place, stored = positions[source].flatten(), data[source].flatten()
    lowest = torch.where(last >= 0, -128, 127).to(torch.int8).expand(place.shape)
    stored = torch.where(last >= 0, stored, -128)
    cleared = cache.reshape(-1).scatter_reduce(0, place, lowest, "amin")
    return cleared.scatter_reduce(0, place, stored, "amax").reshape(cache.shape)
