"""Cases of `linear_bf16`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.case import Case, Comparison

# (label, rows, N, K)
SIZES = (
    ("one row, one output", 1, 1, 32),
    ("fewer columns than the waves share", 2, 4, 96),
    ("last step of some waves empty", 5, 20, 544),
    ("outputs not a multiple of 4", 3, 13, 256),
    ("8 rows", 8, 16, 512),
    ("9 rows", 9, 16, 512),
    ("17 rows", 17, 48, 512),
    ("25 rows", 25, 20, 512),
    ("63 rows", 63, 40, 256),
    ("63 rows, outputs in pairs of bands", 63, 250, 512),
    ("64 rows", 64, 32, 512),
    ("65 rows", 65, 72, 256),
    ("many outputs", 4, 9000, 64),
    ("many outputs of many rows", 65, 4100, 64),
    ("GLM-5.1 head gates", 4, 32, 6144),
    ("GLM-5.1 router", 16, 256, 6144),
)


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(17)
    dtype = element_format.activation_dtype

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator).to(dtype)

    def case(label: str, x: torch.Tensor, weight: torch.Tensor) -> Case:
        # The order of the sum: no more than a few roundings of the sum of the terms' magnitudes, row by row.
        magnitude = (x.double().abs() @ weight.double().abs().T).amax(1)
        largest = (x.double() @ weight.double().T).abs().amax(1)
        ratio = (magnitude / largest.clamp_min(1e-300)).nan_to_num(1.0, 1.0, 1.0).amax().item()
        return Case(label, (x, weight), (Comparison(relative=2e-6 * max(ratio, 1.0), absolute=1e-30),))

    made = [case(label, matrix(rows, k), matrix(n, k)) for label, rows, n, k in SIZES]
    made.append(case("zeros", torch.zeros(3, 256, dtype=dtype), matrix(32, 256)))
    made.append(case("huge", matrix(3, 256) * 1e15, matrix(32, 256) * 1e15))
    made.append(case("tiny", matrix(3, 256) * 1e-15, matrix(32, 256) * 1e-15))
    poisoned = matrix(5, 256)
    poisoned[1, 3], poisoned[3, 255] = float("nan"), float("inf")
    made.append(case("NaN and infinity in two rows", poisoned, matrix(32, 256)))
    return made
