"""The parameters of one rank, each described by the checkpoint tensors it is made of, and made band by band.

A band is as many rows of a checkpoint tensor as fit in `BAND_BYTES`, so memory does not depend on sizes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.layouts import GROUP, TILE, TILED_16X16, RowMajor, Tiled16x16
from predecode.export.rope_parameters import RopeParameters
from predecode.export.rope_table import rope_table
from predecode.export.weights.checkpoint_tensors import scale_name
from predecode.export.weights.convert import convert_fp8, quantize_blocks
from predecode.export.weights.source import Region, TensorFacts, TensorSource
from predecode.pipelines.errors import PredecodeError

BAND_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive elements of parameter ``name``, from element ``offset`` on."""

    name: str
    offset: int
    data: torch.Tensor


class Parameters(Protocol):
    """One or two parameters that are made together."""

    @property
    def outputs(self) -> dict[str, TensorFacts]:
        """Shape and dtype of each parameter by name."""
        ...

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of the checkpoint tensors that are read (scales of FP8 weights apart)."""
        ...

    def pieces(self, source: TensorSource) -> Iterator[Piece]:
        """The contents; together the pieces cover every element once."""
        ...


@dataclass(frozen=True, slots=True)
class MatrixPart:
    """Part of a checkpoint matrix, or of matrix ``expert`` of a fused [experts, rows, columns] tensor."""

    name: str
    rows: slice
    columns: slice
    expert: int | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def bands(self, row_bytes: int) -> Iterator["MatrixPart"]:
        """The part cut into bands of whole scale blocks, in order; reading a row takes ``row_bytes``."""
        step = max(BAND_BYTES // (row_bytes * GROUP), 1) * GROUP
        for start in range(self.rows.start, self.rows.stop, step):
            rows = slice(start, min(start + step, self.rows.stop))
            yield MatrixPart(self.name, rows, self.columns, self.expert)

    def read(self, source: TensorSource) -> torch.Tensor:
        """[rows, columns] in the stored dtype."""
        lead: Region = () if self.expert is None else (slice(self.expert, self.expert + 1),)
        return source.read(self.name, (*lead, self.rows, self.columns)).reshape(self.shape)

    def read_scales(self, source: TensorSource) -> torch.Tensor:
        """float32 [ceil(rows / 128), ceil(columns / 128)]: block scales of an FP8 matrix."""
        blocks = tuple(slice(part.start // GROUP, -(-part.stop // GROUP)) for part in (self.rows, self.columns))
        return source.read(scale_name(self.name), blocks)


@dataclass(frozen=True, slots=True)
class BlockScaledParameters:
    """``{name}.values`` and ``{name}.scales`` of a linear weight, its parts stacked row by row.

    ``matrices`` holds the parts of each expert, or of the one matrix where ``experts`` is false. Values are
    stored as ``layout`` says, in ``shape`` where that is not the layout's own.
    """

    name: str
    matrices: tuple[tuple[MatrixPart, ...], ...]
    element_format: ElementFormat
    layout: RowMajor | Tiled16x16 = TILED_16X16
    experts: bool = False
    shape: tuple[int, ...] | None = None

    def __post_init__(self):
        for parts in self.matrices:
            for part in parts:
                self._check(part, is_last=part is parts[-1])

    def _check(self, part: MatrixPart, is_last: bool) -> None:
        starts_block = part.rows.start % GROUP == 0 and part.columns.start % GROUP == 0
        ends_block = is_last or part.shape[0] % GROUP == 0
        if not (starts_block and ends_block and part.shape[0] % TILE == 0 and part.shape[1] % GROUP == 0):
            raise PredecodeError(
                f"{self.name}: rows {part.rows.start}:{part.rows.stop}, columns {part.columns.start}:"
                f"{part.columns.stop} of {part.name} cut a scale block of {GROUP} x {GROUP}"
            )

    @property
    def _matrix_shape(self) -> tuple[int, int]:
        return sum(part.shape[0] for part in self.matrices[0]), self.matrices[0][0].shape[1]

    @property
    def outputs(self) -> dict[str, TensorFacts]:
        """See `Parameters`."""
        rows, columns = self._matrix_shape
        lead = (len(self.matrices),) if self.experts else ()
        tiles = (rows // TILE, columns // TILE, TILE, TILE)
        own_shape = tiles if self.layout == TILED_16X16 else (rows, columns)
        return {
            f"{self.name}.values": TensorFacts(lead + (self.shape or own_shape), self.element_format.dtype),
            f"{self.name}.scales": TensorFacts((*lead, -(-rows // GROUP), columns // GROUP), torch.float32),
        }

    @property
    def needed(self) -> tuple[str, ...]:
        """See `Parameters`."""
        return tuple(part.name for parts in self.matrices for part in parts)

    def pieces(self, source: TensorSource) -> Iterator[Piece]:
        """See `Parameters`. Bands of 16 rows follow each other in any layout, so values stay together."""
        value_offset = scale_offset = 0
        for parts in self.matrices:
            for part in parts:
                facts = source.tensors[part.name]
                for band in part.bands(facts.shape[-1] * facts.dtype.itemsize):
                    values, scales = self._convert(source, band)
                    yield Piece(f"{self.name}.values", value_offset, self.layout.pack(values))
                    yield Piece(f"{self.name}.scales", scale_offset, scales)
                    value_offset += values.numel()
                    scale_offset += scales.numel()

    def _convert(self, source: TensorSource, band: MatrixPart) -> tuple[torch.Tensor, torch.Tensor]:
        weight = band.read(source)
        try:
            if weight.dtype == torch.float8_e4m3fn:
                return convert_fp8(weight, band.read_scales(source), self.element_format)
            return quantize_blocks(weight, self.element_format)
        except ValueError as error:
            raise PredecodeError(f"{source.where}: tensor {band.name} cannot be used: {error}") from None


@dataclass(frozen=True, slots=True)
class PlainParameter:
    """A parameter that is a range of rows of one checkpoint tensor, converted to ``dtype``."""

    name: str
    source_name: str
    rows: slice
    row_shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def outputs(self) -> dict[str, TensorFacts]:
        """See `Parameters`."""
        return {self.name: TensorFacts((self.rows.stop - self.rows.start, *self.row_shape), self.dtype)}

    @property
    def needed(self) -> tuple[str, ...]:
        """See `Parameters`."""
        return (self.source_name,)

    def pieces(self, source: TensorSource) -> Iterator[Piece]:
        """See `Parameters`."""
        row_elements = math.prod(self.row_shape)
        columns = tuple(slice(0, size) for size in self.row_shape)
        step = max(BAND_BYTES // (row_elements * source.tensors[self.source_name].dtype.itemsize), 1)
        for start in range(self.rows.start, self.rows.stop, step):
            rows = slice(start, min(start + step, self.rows.stop))
            data = source.read(self.source_name, (rows, *columns)).to(self.dtype)
            if not torch.isfinite(data).all():
                raise PredecodeError(f"{source.where}: tensor {self.source_name} holds NaN or infinity")
            yield Piece(self.name, (start - self.rows.start) * row_elements, data)


@dataclass(frozen=True, slots=True)
class RopeTableParameter:
    """``rope_table`` float32 [max_context, rope_dim], which comes from the config alone."""

    parameters: RopeParameters
    rope_dim: int
    max_context: int

    @property
    def outputs(self) -> dict[str, TensorFacts]:
        """See `Parameters`."""
        return {"rope_table": TensorFacts((self.max_context, self.rope_dim), torch.float32)}

    @property
    def needed(self) -> tuple[str, ...]:
        """See `Parameters`."""
        return ()

    def pieces(self, source: TensorSource) -> Iterator[Piece]:
        """See `Parameters`."""
        yield Piece("rope_table", 0, rope_table(self.parameters, self.rope_dim, self.max_context))
