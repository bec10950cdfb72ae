"""Checking what a caller hands to a step, and padding it to a compiled row count.

A compiled step reads memory wherever its inputs point, so every value that becomes an address is checked
here.
"""

from collections.abc import Callable, Mapping

import iree.runtime as rt
import ml_dtypes  # noqa: F401  registers the dtype names of bfloat16 and FP8
import numpy as np

from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.manifest import RESIDENT_ROLES, EntryPoint, Manifest, TensorSpec
from predecode.pipelines.pages import PADDING_SLOT

PARTIAL_SUFFIX = "_partial"


class StepInputError(PredecodeError):
    """An argument of a step that cannot be run: which one, what it holds, what it may hold."""


def result_name(name: str) -> str:
    """The argument that a result becomes for the next segment: "hidden_partial" is "hidden" once reduced."""
    return name.removesuffix(PARTIAL_SUFFIX)


def caller_arguments(segments: tuple[EntryPoint, ...]) -> dict[str, TensorSpec]:
    """The arguments that the caller of a step provides: those no earlier segment makes and no session keeps."""
    wanted: dict[str, TensorSpec] = {}
    made: set[str] = set()
    for segment in segments:
        for spec in segment.arguments:
            if spec.role not in RESIDENT_ROLES and spec.name not in made:
                wanted.setdefault(spec.name, spec)
        made |= {result_name(spec.name) for spec in segment.results}
    return wanted


def prepare(
    manifest: Manifest,
    arguments: Mapping[str, "np.ndarray | rt.DeviceArray"],
    wait: Callable[[], None] = lambda: None,
) -> tuple[int, int, dict[str, "np.ndarray | rt.DeviceArray"]]:
    """Check ``arguments`` of a step and pad them to the next compiled row count.

    Returns (rows given, rows compiled, padded arguments). Activations that lie on the device stay there where
    they need no padding. Rows that are added have slot -1, position 0,
    length 0 and zeros elsewhere: they read no cache, write no cache, and their results are dropped.
    Block-table entries behind a row's last page are set to 0, so that callers may leave anything there.
    ``wait`` is called before an array on the device is read.
    Raises `StepInputError` with one line that names the argument, the row and both values.
    """
    expected = caller_arguments(manifest.segments(manifest.row_counts[0]))
    _check_names(expected, arguments)
    arrays = {name: _as_array(name, arguments[name], spec, wait) for name, spec in expected.items()}
    rows = _count_rows(arrays)
    compiled = next((count for count in manifest.row_counts if count >= rows), None)
    if rows < 1 or compiled is None:
        raise StepInputError(
            f"a step of {rows} rows was asked for, the artifact has steps of {list(manifest.row_counts)} "
            "rows; split it or export with other --rows"
        )
    _check_values(manifest, arrays)
    return rows, compiled, {name: _pad(name, array, compiled, wait) for name, array in arrays.items()}


def _check_names(expected: Mapping[str, TensorSpec], arguments: Mapping[str, np.ndarray]) -> None:
    for name in sorted(set(expected) - set(arguments)):
        raise StepInputError(f"argument {name} is missing; the step takes {sorted(expected)}")
    for name in sorted(set(arguments) - set(expected)):
        raise StepInputError(f"argument {name!r} is unknown; the step takes {sorted(expected)}")


def _as_array(name: str, value, spec: TensorSpec, wait: Callable[[], None]) -> "np.ndarray | rt.DeviceArray":
    dtype = np.dtype(spec.dtype)
    on_device = isinstance(value, rt.DeviceArray)
    if on_device and dtype.kind != "i" and value.dtype == dtype and tuple(value.shape[1:]) == spec.shape[1:]:
        return value
    try:
        array = _download(value, wait) if on_device else np.asarray(value)
    except ValueError as error:
        raise StepInputError(f"{name} is no array ({error})") from None
    if dtype.kind == "i" and array.dtype.kind in "iu":
        limits = np.iinfo(dtype)
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            raise StepInputError(f"{name} holds {array.max()}, which does not fit in {dtype}")
        array = array.astype(dtype)
    if array.dtype != dtype:
        raise StepInputError(f"{name} is {array.dtype}, expected {dtype}; convert it (bfloat16 and FP8: ml_dtypes)")
    if array.ndim != len(spec.shape) or array.shape[1:] != spec.shape[1:]:
        shape = ", ".join(["rows", *map(str, spec.shape[1:])])
        raise StepInputError(f"{name} has shape {list(array.shape)}, expected [{shape}]")
    return np.ascontiguousarray(array)


def _count_rows(arrays: Mapping[str, np.ndarray]) -> int:
    counts = {name: array.shape[0] for name, array in arrays.items()}
    first = next(iter(counts))
    for name, count in counts.items():
        if count != counts[first]:
            raise StepInputError(f"{name} has {count} rows, {first} has {counts[first]}; give every argument the same")
    return counts[first]


def _check_values(manifest: Manifest, arrays: Mapping[str, np.ndarray]) -> None:
    geometry = manifest.geometry
    slots = geometry.pages * geometry.page_tokens
    _check_range("tokens", arrays, 0, manifest.model.config.get("vocab_size", 2**63), "the vocabulary")
    _check_range("positions", arrays, 0, geometry.max_context, "the context the artifact was exported for")
    _check_range("lengths", arrays, 0, geometry.max_context + 1, "the context the artifact was exported for")
    _check_range("slot_mapping", arrays, PADDING_SLOT, slots, f"the pool of {geometry.pages} pages")
    _check_range("selected_slots", arrays, PADDING_SLOT, slots, f"the pool of {geometry.pages} pages")
    if {"lengths", "block_table"} <= set(arrays):
        _check_block_table(manifest, arrays["lengths"], arrays["block_table"])
    if {"slot_mapping", "positions"} <= set(arrays):
        _check_placement(manifest, arrays)


def _check_range(name: str, arrays: Mapping[str, np.ndarray], low: int, high: int, bound: str) -> None:
    array = arrays.get(name)
    if array is None:
        return
    bad = np.argwhere((array < low) | (array >= high))
    if len(bad):
        where = tuple(bad[0])
        place = f"row {where[0]}" if len(where) == 1 else f"row {where[0]}, column {where[1]}"
        raise StepInputError(f"{name} of {place} is {array[where]}, expected {low} to {high - 1} ({bound})")


def _check_block_table(manifest: Manifest, lengths: np.ndarray, block_table: np.ndarray) -> None:
    geometry = manifest.geometry
    used = np.arange(block_table.shape[1])[None, :] * geometry.page_tokens < lengths[:, None]
    bad = np.argwhere(used & ((block_table < 0) | (block_table >= geometry.pages)))
    if len(bad):
        row, column = bad[0]
        raise StepInputError(
            f"block_table of row {row}, column {column} is {block_table[row, column]}, and the row's length "
            f"{lengths[row]} reaches it; expected a page of the pool, 0 to {geometry.pages - 1}"
        )
    block_table[~used] = 0


def _check_placement(manifest: Manifest, arrays: Mapping[str, np.ndarray]) -> None:
    """Rows that write a token: its slot, position, length and block table must tell the same place."""
    tokens = manifest.geometry.page_tokens
    slots, positions = arrays["slot_mapping"], arrays["positions"]
    written: dict[int, int] = {}
    for row in np.flatnonzero(slots != PADDING_SLOT):
        slot, position = int(slots[row]), int(positions[row])
        if slot in written:
            raise StepInputError(f"slot_mapping of rows {written[slot]} and {row} are both {slot}; give each its own")
        written[slot] = row
        if "lengths" in arrays and arrays["lengths"][row] != position + 1:
            raise StepInputError(
                f"lengths of row {row} is {arrays['lengths'][row]}, its position {position} makes it "
                f"{position + 1} (the token itself counts)"
            )
        if "block_table" in arrays:
            page = int(arrays["block_table"][row, position // tokens])
            if slot != page * tokens + position % tokens:
                raise StepInputError(
                    f"slot_mapping of row {row} is {slot}, its position {position} and block table say "
                    f"{page * tokens + position % tokens} (page {page})"
                )


def _pad(
    name: str, array: "np.ndarray | rt.DeviceArray", rows: int, wait: Callable[[], None]
) -> "np.ndarray | rt.DeviceArray":
    missing = rows - array.shape[0]
    if not missing:
        return array
    array = _download(array, wait) if isinstance(array, rt.DeviceArray) else array
    filler = PADDING_SLOT if name in ("slot_mapping", "selected_slots") else 0
    return np.concatenate([array, np.full((missing, *array.shape[1:]), filler, array.dtype)])


def _download(array: rt.DeviceArray, wait: Callable[[], None]) -> np.ndarray:
    wait()
    return np.array(array.to_host())
