"""Cases of `gemm_fp8_blockscale`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.layouts import TILED_16X16
from tests.custom_kernels.cases.block_scaled import close, quantized_rows, tiled_weight
from tests.custom_kernels.cases.case import Case

# (label, rows, N, K)
SIZES = (
    ("one row, one group", 1, 16, 128),
    ("last scale block half full", 3, 192, 256),
    ("16 rows", 16, 48, 384),
    ("17 rows", 17, 48, 384),
    ("33 rows", 33, 48, 384),
    ("48 rows", 48, 144, 1024),
    ("63 rows", 63, 32, 256),
    ("64 rows", 64, 32, 256),
    ("64 rows, more columns than are under way", 64, 144, 2048),
    ("65 rows", 65, 32, 256),
    ("more groups than waves", 5, 144, 1152),
    ("4 rows, more columns than are under way", 4, 144, 8064),
    ("9 rows, more columns than are under way", 9, 144, 4224),
    ("GLM-5.1 indexer wk", 2, 128, 6144),
    ("GLM-5.1 rank q_b", 4, 2048, 2048),
    ("8 rows, outputs that fill a chip", 8, 4240, 1024),
    ("9 rows, outputs that fill a chip", 9, 4240, 1024),
    ("33 rows, outputs that fill a chip", 33, 4240, 1024),
    ("64 rows, outputs that fill a chip", 64, 4240, 1024),
)


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(13)
    compare = (close(element_format),)
    made = []
    for label, rows, n, k in SIZES:
        x = quantized_rows(generator, rows, k, element_format)
        weight = tiled_weight(generator, (n, k), element_format)
        made.append(Case(label, (*x, *weight), compare))

    values, scales = quantized_rows(generator, 5, 384, element_format)
    weight, weight_scales = tiled_weight(generator, (160, 384), element_format)
    for label, factor in (("huge scales", 1e12), ("tiny scales", 1e-12)):
        made.append(Case(label, (values, scales * factor, weight, weight_scales), compare))
    made.append(Case("zeros", (torch.zeros_like(values), scales, weight, weight_scales), compare))

    # The largest magnitude everywhere: the longest sum that a matrix unit must hold.
    top = element_format.encode(torch.full((160, 384), min(element_format.maximum, 1e4)))
    made.append(Case("all maximal", (top[:5], scales, TILED_16X16.pack(top), weight_scales), compare))
    return made
