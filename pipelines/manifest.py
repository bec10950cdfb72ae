"""What manifest.json says about an artifact: everything needed to load, run, check and explain it.

Every class here is one JSON object with the same keys. dtypes are NumPy / ml_dtypes names ("bfloat16",
"float8_e4m3fn", "int8", ...), shapes are lists of ints, byte counts are ints.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.kernel_record import KernelRecord
from predecode.pipelines.records import RecordError, decode, encode

FORMAT_VERSION = 1
ROLES = ("input", "cache", "mailboxes", "state", "output")
RESIDENT_ROLES = ("cache", "mailboxes")
"""Of arguments that a session keeps on the device from step to step."""
REDUCTIONS = ("external", "peers", "none")
"""How a rank's partial sums become sums: by the caller, among the ranks themselves (see `mailboxes`), or not at all."""
KINDS = ("kernel", "compiled")


@dataclass(frozen=True, slots=True)
class Model:
    """Which model, and which part of it. ``layers`` None is the whole decode step.

    ``config`` holds the Hugging Face fields; ``reduce`` is one of `REDUCTIONS` ("external" ends an entry point at each
    all-reduce); ``schedule`` and ``fuse`` are how ops share dispatches; ``seed`` is that of random weights, None for a
    checkpoint's.
    """

    name: str
    config: dict[str, Any]
    layers: tuple[int, ...] | None
    tensor_parallel: int
    rank: int
    reduce: str
    schedule: str
    fuse: str
    seed: int | None


@dataclass(frozen=True, slots=True)
class TargetRecord:
    """The chip. ``device`` is the IREE driver; ``memory_bandwidth`` in bytes per second (0: not quoted).

    ``compute_units`` is 0 where a dispatch's workgroups are not set against the chip's size.
    """

    name: str
    device: str
    arch: str
    element_format: str
    memory_bandwidth: float
    compute_units: int


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes fixed at export: tokens of a page, pages of the pool, longest context, block-table columns."""

    page_tokens: int
    pages: int
    max_context: int
    block_table_width: int


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file of the artifact."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameter archive (.irpa) and the scope that the module looks its parameters up in."""

    file: str
    scope: str


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One argument or result of an entry point, in call order.

    ``role``: "input" comes from the caller each step, "cache" lives on the device between steps, "mailboxes" are
    addresses of what ranks send each other, "state" is handed from segment to segment, "output" goes to the caller.
    ``layout`` names a layout of `layouts`.
    ``in_place`` of a result names the argument whose buffer it reuses.
    """

    name: str
    role: str
    shape: tuple[int, ...]
    dtype: str
    layout: str
    in_place: str | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """A buffer range a dispatch is bound to; ``access`` is "read", "write" or "read_write".

    ``bytes`` is what the dispatch needs of it at most; ``bound_bytes`` the whole range where that is more. ``parts``
    are the bytes by parameter, named as within their layer, where the range holds a layer's.
    """

    name: str
    access: str
    bytes: int
    bound_bytes: int | None = None
    parts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One dispatch of an entry point. ``kind`` is "kernel" (ours) or "compiled" (a compiled reference).

    ``after`` lists the earlier dispatches of the entry point (by index) that wrote what this one reads; ``kernel``
    is its index in the manifest's kernels, None for a compiled one.
    """

    name: str
    kind: str
    workgroups: tuple[int, ...]
    bytes_read: int
    bytes_written: int
    bindings: tuple[Binding, ...]
    after: tuple[int, ...]
    kernel: int | None = None


@dataclass(frozen=True, slots=True)
class Exemption:
    """A command or dispatch that the audit would refuse, and why it is allowed."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Audit:
    """What the compiled entry point does: dispatches in order, copies, fills, scratch, in-place bindings."""

    dispatches: tuple[Dispatch, ...]
    copies: int
    fills: int
    transient_bytes: int
    in_place: tuple[str, ...]
    exempted: tuple[Exemption, ...] = ()

    @property
    def levels(self) -> tuple[int, ...]:
        """Dependency level of each dispatch, from 1: one more than the highest of those it comes after."""
        levels: list[int] = []
        for dispatch in self.dispatches:
            levels.append(1 + max((levels[i] for i in dispatch.after), default=0))
        return tuple(levels)


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """A function of the module: one segment of the step, compiled for a row count.

    The entry points of one row count, in manifest order, make up a step.
    """

    name: str
    segment: str
    rows: int
    arguments: tuple[TensorSpec, ...]
    results: tuple[TensorSpec, ...]
    audit: Audit


@dataclass(frozen=True, slots=True)
class BandwidthProbe:
    """A module of its own that only reads memory: what `predecode bench` measures by.

    ``entry_point`` reads large buffers, each once. ``launches`` reads parts of a buffer, of few bytes to many, one
    launch after the other; None where launches are not measured.
    """

    module: str
    entry_point: EntryPoint
    launches: EntryPoint | None = None


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a result may be from its golden, row by row (the first axis; a cache's rows are its slots).

    NaN and infinity masks must be equal. Then
    ``|given - expected| <= absolute + relative * max |expected row|`` and cosine >= ``cosine``.
    Quantised results are compared after dequantisation; an element may also be up to ``steps`` steps of its
    own number format away, and at most ``fraction`` of the elements may differ at all. Integers must be
    equal.
    """

    relative: float = 0.0
    absolute: float = 0.0
    cosine: float = -1.0
    steps: int = 0
    fraction: float = 1.0


@dataclass(frozen=True, slots=True)
class Golden:
    """The golden file (described in `golden`), the tolerance of each result by name, and the step count.

    ``file`` is None for a model that is too large to run at export; a golden made elsewhere still compares.
    """

    file: str | None
    tolerance: dict[str, Tolerance]
    steps: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole of manifest.json. ``tools`` maps packages to versions; the writer fills in ``files``."""

    model: Model
    target: TargetRecord
    geometry: Geometry
    tools: dict[str, str]
    module: str
    parameters: Parameters | None
    kernels: tuple[KernelRecord, ...]
    entry_points: tuple[EntryPoint, ...]
    golden: Golden | None = None
    bandwidth_probe: BandwidthProbe | None = None
    files: dict[str, FileRecord] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def row_counts(self) -> tuple[int, ...]:
        """Compiled row counts, ascending."""
        return tuple(sorted({entry.rows for entry in self.entry_points}))

    def chosen_rows(self, rows: Sequence[int] | None) -> tuple[int, ...]:
        """``rows`` as someone asks for them, or all; raises a `PredecodeError` where one is not compiled."""
        for count in rows or ():
            if count not in self.row_counts:
                raise PredecodeError(
                    f"--rows {count}: the artifact has steps of {', '.join(map(str, self.row_counts))} rows; choose "
                    "of these or export with other --rows"
                )
        return tuple(rows or self.row_counts)

    def segments(self, rows: int) -> tuple[EntryPoint, ...]:
        """The entry points that make up a step of ``rows`` rows, in order."""
        return tuple(entry for entry in self.entry_points if entry.rows == rows)

    def to_json(self) -> str:
        """Deterministic text: sorted keys, no time stamps."""
        return json.dumps(encode(self), indent=1, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Manifest":
        """Parse and check; raises `RecordError` naming what is wrong."""
        try:
            document = json.loads(text)
        except ValueError as error:
            raise RecordError(f"not valid JSON ({error})") from None
        if not isinstance(document, dict):
            raise RecordError(f"the document is a {type(document).__name__}, expected an object")
        version = document.get("format_version")
        if version != FORMAT_VERSION:
            raise RecordError(
                f"format version {version!r} was written, this predecode reads version {FORMAT_VERSION}; "
                "export the model again, or use the predecode that wrote it"
            )
        manifest = decode(cls, document)
        manifest.check()
        return manifest

    def check(self) -> None:
        """Facts that the types do not state; raises `RecordError`."""
        if not self.entry_points:
            raise RecordError("entry_points is empty, expected at least one")
        names = [entry.name for entry in self.entry_points]
        if len(set(names)) != len(names):
            raise RecordError(f"entry point names are not unique: {sorted(names)}")
        for entry in self.entry_points:
            if entry.rows < 1:
                raise RecordError(f"{entry.name}.rows is {entry.rows}, expected at least 1")
            for spec in (*entry.arguments, *entry.results):
                if spec.role not in ROLES:
                    raise RecordError(f"{entry.name}: {spec.name} has role {spec.role!r}, expected one of {ROLES}")
            arguments = {spec.name: spec for spec in entry.arguments}
            for spec in entry.results:
                source = arguments.get(spec.in_place) if spec.in_place else None
                if spec.in_place and (source is None or (source.shape, source.dtype) != (spec.shape, spec.dtype)):
                    raise RecordError(
                        f"{entry.name}: result {spec.name} is said to reuse {spec.in_place!r}, which is no "
                        "argument of the same shape and dtype"
                    )
            for index, dispatch in enumerate(entry.audit.dispatches):
                if dispatch.kind not in KINDS:
                    raise RecordError(f"{entry.name}: {dispatch.name} has kind {dispatch.kind!r}, expected {KINDS}")
                if not all(0 <= before < index for before in dispatch.after):
                    raise RecordError(
                        f"{entry.name}: dispatch {index} ({dispatch.name}) is said to come after "
                        f"{list(dispatch.after)}, expected dispatches before it"
                    )
                if dispatch.kernel is not None and not 0 <= dispatch.kernel < len(self.kernels):
                    raise RecordError(
                        f"{entry.name}: {dispatch.name} names kernel {dispatch.kernel}, there are {len(self.kernels)}"
                    )
        listed = {self.module}
        listed |= {self.parameters.file} if self.parameters else set()
        listed |= {self.golden.file} if self.golden and self.golden.file else set()
        listed |= {self.bandwidth_probe.module} if self.bandwidth_probe else set()
        missing = sorted(listed - set(self.files))
        if missing:
            raise RecordError(f"{missing[0]!r} is used but not listed under files")
