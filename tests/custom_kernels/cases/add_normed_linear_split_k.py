"""Cases of `add_normed_linear_split_k`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.split_k import join_partials, slices_of
from tests.custom_kernels.cases.activations import poisoned_row, random_rows, special_rows
from tests.custom_kernels.cases.case import Case, Comparison

# (label, T, K, N)
SIZES = (
    ("one row", 1, 512, 64),
    ("three steps a slice", 3, 1536, 64),
    ("8 rows", 8, 512, 128),
    ("17 rows, 96 outputs", 17, 512, 96),
    ("33 rows", 33, 512, 64),
    ("63 rows", 63, 1024, 64),
    ("64 rows", 64, 512, 64),
    ("GLM-5.1, 17 rows", 17, 6144, 256),
    ("GLM-5.1, 64 rows", 64, 6144, 256),
    ("DeepSeek-V3.2, 32 rows", 32, 7168, 256),
    ("384 experts", 20, 7168, 384),
)


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(65)

    def case(label, x, n):
        rows, columns = x.shape
        residual, weight = (torch.randn(count, columns, generator=generator).to(x.dtype) for count in (rows, n))
        norm = (1 + 0.3 * torch.randn(columns, generator=generator)).to(x.dtype)
        return Case(label, (x, residual, norm, weight), (_of_any_order(x, residual, norm, weight),))

    made = [case(label, random_rows(generator, (t, k), element_format), n) for label, t, k, n in SIZES]
    special = special_rows(generator, 1024, element_format)
    special["NaN and infinity"] = poisoned_row(generator, 1024, element_format)
    made += [case(label, x, 64) for label, x in special.items()]
    # The sum's low bits are lost in bfloat16.
    one = torch.ones(2, 512, dtype=element_format.activation_dtype)
    norm, weight = one[0], torch.randn(64, 512, generator=generator).to(one.dtype)
    for label, residual in (("sums beyond bf16", one * 2.0**-9), ("sums that cancel", -one)):
        made.append(Case(label, (one, residual, norm, weight), (_of_any_order(one, residual, norm, weight),)))
    return made


def _of_any_order(x: torch.Tensor, residual: torch.Tensor, norm: torch.Tensor, weight: torch.Tensor) -> Comparison:
    """Each sum within what float32 loses in whatever order it is taken."""
    rows = (x.double() + residual.double()).nan_to_num(0, 0, 0)
    sizes, weights = (slices_of(matrix.abs()) for matrix in (rows * norm.double(), weight.double()))
    terms, squares = torch.einsum("tsk,nsk->stn", sizes, weights), slices_of(rows**2).sum(2).T / rows.shape[1]
    return Comparison(absolute=2.0**-18 * join_partials(terms, squares) + 1e-30)
