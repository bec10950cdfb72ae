"""How products of few rows are cut: what every choice must keep, and that the kernels are right whatever is chosen."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from predecode.custom_kernels import gemm_fp8_blockscale, linear_bf16
from predecode.custom_kernels.composition import Composition
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.launch_check import check_launch
from predecode.custom_kernels.op import OPS, Call
from predecode.custom_kernels.skinny_tile import (
    SkinnyTile,
    block_scaled_tile,
    float_split_tile,
    float_tile,
    part_rows,
)
from predecode.custom_kernels.targets import GFX942, GFX950, SM_90
from predecode.custom_kernels.toolchain import Toolchain
from predecode.custom_kernels.warpgroup_tile import warpgroup_tile
from predecode.pipelines import emulation
from tests.custom_kernels.cases.block_scaled import close, quantized_rows, tiled_weight
from tests.custom_kernels.cases.case import Case, Comparison
from tests.custom_kernels.compiled_cases import compile_cases, run_cases

targets = st.sampled_from([GFX942, GFX950, SM_90])


@given(targets, st.integers(1, 300), st.integers(1, 2000), st.integers(1, 160))
def test_block_scaled_tiles(target, rows, bands, groups):
    tile = block_scaled_tile(target, rows, bands, 128 * groups)
    assert tile.outputs % 16 == 0
    check(tile, target, rows, 16 * bands, row_bytes=128 * groups)


@given(targets, st.integers(1, 300), st.integers(1, 30000), st.integers(1, 300))
def test_float_tiles(target, rows, outputs, fragments):
    check(float_tile(target, rows, outputs, 32 * fragments), target, rows, outputs, row_bytes=64 * fragments)


def check(tile: SkinnyTile, target, rows: int, outputs: int, row_bytes: int):
    x, y, z = tile.workgroups(target, rows, outputs)
    rows_each = tile.parts * part_rows(target)
    # Everything is covered, and no workgroup is without work.
    assert (x - 1) * tile.outputs < outputs <= x * tile.outputs
    assert (y - 1) * rows_each < rows <= y * rows_each and z == 1
    # A row is padded to a power of two of parts at most.
    assert rows_each <= 64 and (rows_each < 2 * rows or tile.parts == 1)
    # What the kernel's loop asks for.
    waves = 256 // target.wave_size
    assert 1 <= tile.weights_ahead <= -(-(row_bytes // 64) // waves)
    assert 1 <= tile.rows_ahead <= -(-(row_bytes // 64) // waves) * tile.parts
    assert tile.parts <= 2 or tile.weights_ahead * tile.parts % tile.rows_ahead == 0
    # The sums of a band, for every wave; the rows ahead, on NVIDIA.
    assert waves * rows_each * 20 * 4 <= target.shared_memory
    assert target.wave_size == 64 or waves * tile.rows_ahead * 32 * 16 <= target.shared_memory


@given(st.integers(1, 70), st.integers(1, 30000), st.integers(1, 300))
def test_float_split_tiles(rows, outputs, fragments):
    tile = float_split_tile(SM_90, rows, outputs, 32 * fragments)
    assert float_split_tile(GFX950, rows, outputs, 32 * fragments) is None
    if tile is None:
        assert rows > 24
        return
    x, y, _ = tile.workgroups(outputs)
    assert rows <= 64 and (tile.split > 1 or rows <= 24) and x % tile.split == 0
    clusters, outputs_each = x // tile.split, 16 * tile.bands
    assert (clusters - 1) * outputs_each < outputs <= clusters * outputs_each
    assert (y - 1) * tile.block < rows <= y * tile.block
    assert 32 * fragments % (16 * tile.split) == 0 and tile.stage % (16 * 8) == 0
    assert 1 <= tile.ahead <= -(-32 * fragments // tile.split // tile.stage)
    # What the kernel asks for: stages or the waves' totals, and the cluster's sums. Two workgroups share a unit.
    stages = tile.ahead * (outputs_each + tile.block) * 2 * (tile.stage + 8)
    totals = tile.bands * 4 * 8 * -(-tile.block // 8) * 8 * 20
    sums = 16 + 16 * tile.split * -(-tile.block * outputs_each // 4 // tile.split)
    assert max(stages, totals) + sums <= 113 * 1024


def test_glm_shapes_on_the_h200():
    # Every workgroup of qkv_a is resident, its weight is read once at 64 rows too, and few experts' scores still use
    # half of the chip.
    assert block_scaled_tile(SM_90, 4, 164, 6144).workgroups(SM_90, 4, 2624) == (164, 1, 1)
    assert block_scaled_tile(SM_90, 64, 164, 6144).workgroups(SM_90, 64, 2624) == (82, 1, 1)
    assert float_tile(SM_90, 4, 256, 6144).workgroups(SM_90, 4, 256) == (64, 1, 1)
    # In clusters a workgroup or two for every compute unit, two products of one dispatch together.
    for rows in (4, 16):
        assert warpgroup_tile(SM_90, rows, 164, 6144).workgroups(164) == (168, 1, 1)
        assert warpgroup_tile(SM_90, rows, 128, 2048).workgroups(128) == (64, 1, 1)
        assert warpgroup_tile(SM_90, rows, 256, 2048).workgroups(256) == (128, 1, 1)
    assert float_split_tile(SM_90, 4, 256, 6144).workgroups(256) == (128, 1, 1)


@pytest.mark.parametrize("rows", [33, 63, 64, 65, 128])
def test_any_number_of_rows_fits_in_registers(rows):
    """GLM-5.1's rank of 8: q_b, o_proj and a dense layer's down projection."""
    for outputs, columns in ((2048, 2048), (6144, 2048), (6144, 1536)):
        bands, groups = outputs // 16, columns // 128
        values, scales = torch.empty(rows, columns, dtype=torch.float8_e4m3fn), torch.empty(groups, rows)
        weight = torch.empty(bands, columns // 16, 16, 16, dtype=torch.float8_e4m3fn)
        named = {"values": values, "scales": scales, "weight": weight, "weight_scales": torch.empty(16, groups)}
        launch = OPS["gemm_fp8_blockscale"].launch_on(SM_90, Call(named, (torch.empty(rows, outputs),)))
        composition = Composition.of(launch, 5)
        check_launch(Toolchain().build(composition, SM_90), composition, SM_90)


# By number of rows, so that one module holds them all. Steps: 5 (FP8 columns 1152), 3 (bfloat16 columns 352) a wave.
FP8_TILES = {
    3: SkinnyTile(48, 1, 4, 2),
    20: SkinnyTile(32, 2, 3, 6),
    30: SkinnyTile(64, 1, 1, 1),
    50: SkinnyTile(64, 4, 2, 8),
    70: SkinnyTile(16, 2, 5, 5),
}
FLOAT_TILES = {
    3: SkinnyTile(64, 1, 3, 3),
    20: SkinnyTile(8, 2, 2, 4),
    30: SkinnyTile(4, 1, 1, 1),
    50: SkinnyTile(48, 4, 1, 2),
    70: SkinnyTile(32, 2, 2, 2),
}


@pytest.mark.parametrize("target", [GFX942, GFX950], ids=["gfx942", "gfx950"])
def test_kernels_with_tiles_that_no_small_case_has(target, monkeypatch):
    monkeypatch.setattr(gemm_fp8_blockscale, "block_scaled_tile", lambda _, rows, *__: FP8_TILES[rows])
    monkeypatch.setattr(linear_bf16, "float_tile", lambda _, rows, *__: FLOAT_TILES[rows])
    generator = torch.Generator().manual_seed(23)
    device = emulation.open_device(target.arch, strict=True)

    def faults(name: str, cases: list[Case]) -> list[str]:
        return [f for _, f in run_cases(OPS[name], cases, compile_cases(OPS[name], cases, target), device) if f]

    weight = tiled_weight(generator, (80, 1152), target.element_format)
    rows = {n: quantized_rows(generator, n, 1152, target.element_format) for n in FP8_TILES}
    compare = (close(target.element_format),)
    assert not faults("gemm_fp8_blockscale", [Case(str(n), (*x, *weight), compare) for n, x in rows.items()])

    weight = torch.randn(75, 352, generator=generator).bfloat16()
    rows = {n: torch.randn(n, 352, generator=generator).bfloat16() for n in FLOAT_TILES}
    compare = (Comparison(relative=1e-5),)
    assert not faults("linear_bf16", [Case(str(n), (x, weight), compare) for n, x in rows.items()])


@pytest.mark.parametrize("ahead", [SkinnyTile(16, 2, 3, 8), SkinnyTile(16, 1, 2, 7), SkinnyTile(16, 1, 12, 12)])
def test_rows_are_loaded_as_often_as_multiplied(ahead):
    """A copy that nobody waits for would arrive among the sums. The text, unrolled, holds 12 steps of each part."""
    rows, columns = 16, 6144
    constants = ("ROWS", rows), ("COLUMNS", columns), *ahead.defines
    launch = Launch("gemm_fp8_blockscale.hip", "gemm_fp8_blockscale", (), (3,), (3, 1, 1), (256, 1, 1), constants)
    ptx = Toolchain().build(Composition.of(launch, 5), SM_90).data.decode()
    assert ptx.count("cp.async.cg.shared.global") == 12 * ahead.parts
