"""A decode step small enough to be written by hand: token embedding plus a sum over the cache, in one module.

``step`` writes ``(token + dim) & 63`` to its row's slot and returns
``logits[t, v] = weight[token, v] + sum over positions < length of cache byte / 64``; two more entry points,
``attention`` and ``mlp``, stand for a layer that ends at its all-reduces. `expected_step` is the same in
NumPy.
"""

from pathlib import Path

import iree.compiler
import ml_dtypes
import numpy as np

from predecode.pipelines.artifact import ArtifactWriter
from predecode.pipelines.golden import GoldenStep, SegmentGolden, write_golden
from predecode.pipelines.golden_caches import InitialCaches, TokenRows
from predecode.pipelines.manifest import (
    Audit,
    Binding,
    Dispatch,
    EntryPoint,
    Geometry,
    Golden,
    KernelRecord,
    Manifest,
    Model,
    Parameters,
    TargetRecord,
    TensorSpec,
    Tolerance,
)
from predecode.pipelines.pages import PagedSequence, PagePool

VOCABULARY, WIDTH, PAGES, PAGE_TOKENS, TABLE = 32, 16, 4, 64, 2
PAGE_BYTES = PAGE_TOKENS * WIDTH
GEOMETRY = Geometry(PAGE_TOKENS, PAGES, TABLE * PAGE_TOKENS, TABLE)
ROW_COUNTS = (1, 3)
WEIGHT = np.random.default_rng(7).standard_normal((VOCABULARY, WIDTH)).astype(np.float32)
CACHE = "layers.0.latent_cache"
FLAGS = (
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=x86-64-v3",
    "--iree-execution-model=async-external",
)


def _step_function(rows: int) -> str:
    selects, previous = [], "%old"
    for row in range(rows):
        selects.append(f"""
      %row{row} = arith.constant {row} : index
      %slot{row} = tensor.extract %slots[%row{row}] : tensor<{rows}xi64>
      %hit{row} = arith.cmpi eq, %slot{row}, %here : i64
      %token{row} = tensor.extract %tokens[%row{row}] : tensor<{rows}xi64>
      %byte{row} = arith.trunci %token{row} : i64 to i8
      %sum{row} = arith.addi %byte{row}, %dim8 : i8
      %new{row} = arith.andi %sum{row}, %mask : i8
      %value{row} = arith.select %hit{row}, %new{row}, {previous} : i8""")
        previous = f"%value{row}"
    return f"""
  func.func @"step_rows{rows}$async"(%tokens: tensor<{rows}xi64>, %positions: tensor<{rows}xi64>, %lengths:
  tensor<{rows}xi32>, %slots: tensor<{rows}xi64>, %table: tensor<{rows}x{TABLE}xi32>, %cache:
  tensor<{PAGES}x{PAGE_BYTES}xi8>, %transients: !hal.buffer)
  -> (tensor<{rows}x{WIDTH}xf32>, tensor<{PAGES}x{PAGE_BYTES}xi8>) {{
    %mask = arith.constant 63 : i8
    %width = arith.constant {WIDTH} : index
    %page_tokens = arith.constant {PAGE_TOKENS} : index
    %zero = arith.constant 0.0 : f32
    %inverse = arith.constant 0.015625 : f32
    %weight = util.global.load @weight : tensor<{VOCABULARY}x{WIDTH}xf32>
    %cache_init = tensor.empty() : tensor<{PAGES}x{PAGE_BYTES}xi8>
    %written = linalg.generic {{
        indexing_maps = [affine_map<(p, o) -> (p, o)>, affine_map<(p, o) -> (p, o)>],
        iterator_types = ["parallel", "parallel"]}}
        ins(%cache : tensor<{PAGES}x{PAGE_BYTES}xi8>) outs(%cache_init : tensor<{PAGES}x{PAGE_BYTES}xi8>) {{
    ^bb0(%old: i8, %unused: i8):
      %page = linalg.index 0 : index
      %offset = linalg.index 1 : index
      %token_in_page = arith.divui %offset, %width : index
      %dim = arith.remui %offset, %width : index
      %dim32 = arith.index_cast %dim : index to i32
      %dim8 = arith.trunci %dim32 : i32 to i8
      %first = arith.muli %page, %page_tokens : index
      %here_index = arith.addi %first, %token_in_page : index
      %here = arith.index_cast %here_index : index to i64{"".join(selects)}
      linalg.yield {previous} : i8
    }} -> tensor<{PAGES}x{PAGE_BYTES}xi8>
    %logits_empty = tensor.empty() : tensor<{rows}x{WIDTH}xf32>
    %embedded = linalg.generic {{
        indexing_maps = [affine_map<(t, v) -> (t)>, affine_map<(t, v) -> (t, v)>],
        iterator_types = ["parallel", "parallel"]}}
        ins(%tokens : tensor<{rows}xi64>) outs(%logits_empty : tensor<{rows}x{WIDTH}xf32>) {{
    ^bb0(%token: i64, %unused: f32):
      %index = arith.index_cast %token : i64 to index
      %v = linalg.index 1 : index
      %w = tensor.extract %weight[%index, %v] : tensor<{VOCABULARY}x{WIDTH}xf32>
      linalg.yield %w : f32
    }} -> tensor<{rows}x{WIDTH}xf32>
    %range = tensor.empty() : tensor<{TABLE * PAGE_TOKENS}xi8>
    %logits = linalg.generic {{
        indexing_maps = [
          affine_map<(t, v, p) -> (t)>, affine_map<(t, v, p) -> (p)>, affine_map<(t, v, p) -> (t, v)>],
        iterator_types = ["parallel", "parallel", "reduction"]}}
        ins(%lengths, %range : tensor<{rows}xi32>, tensor<{TABLE * PAGE_TOKENS}xi8>)
        outs(%embedded : tensor<{rows}x{WIDTH}xf32>) {{
    ^bb0(%length: i32, %unused: i8, %sum: f32):
      %t = linalg.index 0 : index
      %v = linalg.index 1 : index
      %p = linalg.index 2 : index
      %length_index = arith.index_cast %length : i32 to index
      %visible = arith.cmpi ult, %p, %length_index : index
      %column = arith.divui %p, %page_tokens : index
      %in_page = arith.remui %p, %page_tokens : index
      %page32 = tensor.extract %table[%t, %column] : tensor<{rows}x{TABLE}xi32>
      %page = arith.index_cast %page32 : i32 to index
      %row_offset = arith.muli %in_page, %width : index
      %offset = arith.addi %row_offset, %v : index
      %byte = tensor.extract %written[%page, %offset] : tensor<{PAGES}x{PAGE_BYTES}xi8>
      %float = arith.sitofp %byte : i8 to f32
      %scaled = arith.mulf %float, %inverse : f32
      %shown = arith.select %visible, %scaled, %zero : f32
      %next = arith.addf %sum, %shown : f32
      linalg.yield %next : f32
    }} -> tensor<{rows}x{WIDTH}xf32>
    return %logits, %written : tensor<{rows}x{WIDTH}xf32>, tensor<{PAGES}x{PAGE_BYTES}xi8>
  }}"""


def _layer_function(name: str, rows: int, factor: str) -> str:
    kind = f"tensor<{rows}x{WIDTH}xbf16>"
    return f"""
  func.func @"{name}_rows{rows}$async"(%hidden: {kind}, %residual: {kind}, %transients: !hal.buffer)
  -> ({kind}, {kind}) {{
    %factor = arith.constant dense<{factor}> : {kind}
    %sum = arith.addf %hidden, %residual : {kind}
    %partial = arith.mulf %sum, %factor : {kind}
    return %partial, %sum : {kind}, {kind}
  }}"""


def _compile(functions: list[str]) -> bytes:
    kind = f"tensor<{VOCABULARY}x{WIDTH}xf32>"
    weight = f'  util.global private @weight = #flow.parameter.named<"model"::"weight"> : {kind}\n'
    return iree.compiler.compile_str("module @small {\n" + weight + "".join(functions) + "\n}", extra_args=FLAGS)


def step_module() -> bytes:
    """vmfb with ``step_rows1`` and ``step_rows3``."""
    return _compile([_step_function(rows) for rows in ROW_COUNTS])


def layer_module() -> bytes:
    """vmfb with ``attention_rows2`` and ``mlp_rows2``, which both end at an all-reduce."""
    return _compile([_layer_function("attention", 2, "0.5"), _layer_function("mlp", 2, "2.0")])


def expected_step(cache: np.ndarray, tokens, lengths, slot_mapping, block_table, **_) -> np.ndarray:
    """Writes ``cache`` (int8 [pages, page bytes]) in place, returns the logits, as described above."""
    slots = cache.reshape(-1, WIDTH)
    for token, slot in zip(tokens, slot_mapping, strict=True):
        if slot >= 0:
            slots[slot] = (token + np.arange(WIDTH)) & 63
    logits = WEIGHT[tokens].copy()
    for row, length in enumerate(lengths):
        for position in range(length):
            page = block_table[row, position // PAGE_TOKENS]
            logits[row] += slots[page * PAGE_TOKENS + position % PAGE_TOKENS] / np.float32(64)
    return logits


def step_entry(rows: int) -> EntryPoint:
    """The manifest's record of ``step_rows{rows}``."""

    def spec(name, role, shape, dtype, layout="row-major", in_place=None):
        return TensorSpec(name, role, shape, dtype, layout, in_place)

    cache = (CACHE, "cache", (PAGES, PAGE_BYTES), "int8", "latent page")
    pool = PAGES * PAGE_BYTES
    bindings = (Binding(CACHE, "read_write", pool, 2 * pool), Binding("tokens", "read", 8 * rows))
    return EntryPoint(
        name=f"step_rows{rows}",
        segment="step",
        rows=rows,
        arguments=(
            spec("tokens", "input", (rows,), "int64"),
            spec("positions", "input", (rows,), "int64"),
            spec("lengths", "input", (rows,), "int32"),
            spec("slot_mapping", "input", (rows,), "int64"),
            spec("block_table", "input", (rows, TABLE), "int32"),
            spec(*cache),
        ),
        results=(spec("logits", "output", (rows, WIDTH), "float32"), spec(*cache, in_place=CACHE)),
        audit=Audit(
            dispatches=(
                Dispatch("write_cache", "kernel", (PAGES, 1, 1), pool + 8 * rows, pool, bindings, (), 0),
                Dispatch("sum_cache", "compiled", (rows, 1, 1), pool, 4 * rows * WIDTH, (), (0,)),
            ),
            copies=0,
            fills=0,
            transient_bytes=4 * rows * WIDTH,
            in_place=(CACHE,),
        ),
    )


def layer_entry(segment: str) -> EntryPoint:
    """The manifest's record of ``attention_rows2`` or ``mlp_rows2``."""
    shape = (2, WIDTH)
    return EntryPoint(
        name=f"{segment}_rows2",
        segment=segment,
        rows=2,
        arguments=tuple(TensorSpec(n, "input", shape, "bfloat16", "row-major") for n in ("hidden", "residual")),
        results=(
            TensorSpec("hidden_partial", "output", shape, "bfloat16", "row-major"),
            TensorSpec("residual", "output", shape, "bfloat16", "row-major"),
        ),
        audit=Audit((), 0, 0, 0, ()),
    )


def manifest(entries: tuple[EntryPoint, ...], golden: Golden | None, ranks: int = 1) -> Manifest:
    """A manifest of the small model over ``entries``."""
    return Manifest(
        model=Model(
            name="small",
            config={"vocab_size": VOCABULARY},
            layers=None,
            tensor_parallel=ranks,
            rank=0,
            reduce="external" if ranks > 1 else "none",
            schedule="serial",
            fuse="none",
            seed=7,
        ),
        target=TargetRecord("cpu", "local-task", "x86_64", "e4m3fn", 0.0, 1),
        geometry=GEOMETRY,
        tools={"iree-base-compiler": "3.13.0"},
        module="module.vmfb",
        parameters=Parameters("parameters.irpa", "model"),
        kernels=(KernelRecord("write_cache", "write_cache.c", "00" * 32),),
        entry_points=entries,
        golden=golden,
    )


def golden_steps(count: int = 3, start: int = 62) -> tuple[InitialCaches, list[GoldenStep]]:
    """Initial caches and ``count`` steps of three sequences of ``start`` tokens each, over a page edge."""
    pool = PagePool(GEOMETRY)
    sequences = [PagedSequence() for _ in range(2)]
    for _ in range(start):
        pool.append(sequences)
    cache = np.random.default_rng(3).integers(0, 64, (PAGES, PAGE_BYTES)).astype(np.int8)
    slots = cache.reshape(-1, WIDTH)
    initial, steps = InitialCaches(np.arange(len(slots), dtype=np.int32), {CACHE: TokenRows(slots.copy(), None)}), []
    for step in range(count):
        placement = pool.append(sequences).as_arguments()
        inputs = {"tokens": np.array([step, step + 5], np.int64)} | placement
        padded = {name: np.concatenate([array, np.zeros_like(array[:1])]) for name, array in inputs.items()}
        padded["slot_mapping"][2] = -1
        logits = expected_step(cache, **padded)
        written = TokenRows(slots[padded["slot_mapping"]], None)
        segment = SegmentGolden("step", padded, {"logits": logits}, {CACHE: written})
        steps.append(GoldenStep(3, (segment,)))
    return initial, steps


def write_parameters(path: Path) -> None:
    """The parameter archive with ``weight``."""
    import iree.runtime as rt

    index = rt.ParameterIndex()
    index.add_buffer("weight", WEIGHT)
    index.create_archive_file(str(path))


def write_step_artifact(output: Path, module: bytes) -> Path:
    """The artifact of the ``step`` entry points with a golden of three steps."""
    initial, steps = golden_steps()
    tolerance = {"logits": Tolerance(relative=1e-5, cosine=0.9999), CACHE: Tolerance()}
    with ArtifactWriter(output) as writer:
        (writer.folder / "module.vmfb").write_bytes(module)
        write_parameters(writer.folder / "parameters.irpa")
        write_golden(writer.folder / "golden.safetensors", initial, steps)
        entries = tuple(step_entry(rows) for rows in ROW_COUNTS)
        writer.finish(manifest(entries, Golden("golden.safetensors", tolerance, len(steps))))
    return output


def write_layer_artifact(output: Path, module: bytes) -> Path:
    """The artifact of ``attention`` and ``mlp``, rank 0 of 2, without a golden."""
    with ArtifactWriter(output) as writer:
        (writer.folder / "module.vmfb").write_bytes(module)
        write_parameters(writer.folder / "parameters.irpa")
        writer.finish(manifest((layer_entry("attention"), layer_entry("mlp")), None, ranks=2))
    return output


def as_bfloat16(values) -> np.ndarray:
    """float values as a bfloat16 array."""
    return np.asarray(values, np.float32).astype(ml_dtypes.bfloat16)
