"""Dispatches in clusters of workgroups: where each op's begin, what the driver is told, and which grids have none."""

import re

import pytest
import torch

from predecode.custom_kernels import gemm_fp8_blockscale, linear_bf16
from predecode.custom_kernels.composition import Composition, Part
from predecode.custom_kernels.entry_source import entry_source
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.launch_check import check_launch
from predecode.custom_kernels.op import Call
from predecode.custom_kernels.targets import GFX942, SM_90
from predecode.custom_kernels.toolchain import Toolchain

DIRECTIVE = re.compile(r"^\.reqnctapercluster (\d+), 1, 1$", re.M)


def described(op, *arguments: torch.Tensor) -> Call:
    names = [argument.name for argument in op.overload._schema.arguments]
    return Call(dict(zip(names, arguments, strict=True)), (op.fake(*arguments),))


def gemm(rows: int, outputs: int, columns: int, target=SM_90) -> Launch:
    values = torch.empty(rows, columns, dtype=torch.float8_e4m3fn, device="meta")
    weight = torch.empty(outputs // 16, columns // 16, 16, 16, dtype=torch.float8_e4m3fn, device="meta")
    scales = torch.empty(columns // 128, rows, device="meta")
    weight_scales = torch.empty(-(-outputs // 128), columns // 128, device="meta")
    op = gemm_fp8_blockscale.OP
    return op.launch_on(target, described(op, values, scales, weight, weight_scales))


def linear(rows: int, outputs: int, columns: int) -> Launch:
    x, weight = (torch.empty(n, columns, dtype=torch.bfloat16, device="meta") for n in (rows, outputs))
    return linear_bf16.OP.launch_on(SM_90, described(linear_bf16.OP, x, weight))


def side_by_side(*launches: Launch) -> Composition:
    parts, pointers = [], 0
    for launch in launches:
        count = len(launch.operands) + 1
        parts.append(Part(launch, tuple(range(pointers, pointers + count))))
        pointers += count
    return Composition((tuple(parts),), pointers)


def ptx_of(composition: Composition) -> str:
    code = Toolchain().build(composition, SM_90)
    check_launch(code, composition, SM_90)
    return code.data.decode()


def test_each_op_begins_with_a_cluster():
    launches = gemm(4, 416, 6144), gemm(4, 48, 2048).when_resident, linear(4, 20, 6144)
    assert [launch.cluster for launch in launches] == [8, 1, 8]
    composition = side_by_side(*launches)
    # 4 tiles of 8 slices; 3 workgroups, and 5 that fill a cluster; 2 tiles of 8 slices.
    assert composition.workgroups == (32 + 8 + 16, 1, 1)
    body = entry_source(composition)
    assert [int(first) for first in re.findall(r"workgroup_of\(index - (\d+),", body)] == [0, 32, 40]
    assert re.findall(r"if \(index < (\d+)\)", body) == ["32", "35", "40", "56"]
    assert "else if (index < 40) return;" in body
    assert DIRECTIVE.findall(ptx_of(composition)) == ["8"]


def test_the_largest_cluster_is_the_entrys():
    composition = side_by_side(gemm(4, 2048, 2048), linear(4, 256, 6144))
    assert [launch.cluster for launch in composition.launches] == [4, 8] and composition.cluster == 8
    assert composition.workgroups[0] % 8 == 0
    assert DIRECTIVE.findall(ptx_of(composition)) == ["8"]


def test_other_entries_have_none():
    assert DIRECTIVE.findall(ptx_of(side_by_side(gemm(65, 48, 2048)))) == []
    assert gemm(4, 2048, 2048, GFX942).cluster == 1


def test_workgroups_alone_do_not_use_clusters():
    """Instructions of clusters are illegal without one; copies to `shared::cluster` are not."""
    of_clusters = re.compile(r"barrier\.cluster|mapa\.|st\.async")
    for rows in (1, 5, 16, 64):
        alone, together = gemm(rows, 16, 128), gemm(rows, 2048, 2048)
        assert alone.cluster == 1 and together.cluster > 1
        assert not of_clusters.search(ptx_of(side_by_side(alone)))
        assert of_clusters.search(ptx_of(side_by_side(together)))


def test_a_grid_is_whole_clusters():
    with pytest.raises(ValueError, match=r"a grid of \(6, 1, 1\) in clusters of 4"):
        Launch("x.hip", "x", (), (), (6, 1, 1), cluster=4)


def test_resident_grids_have_no_clusters():
    launch = gemm(4, 2048, 2048)
    plain = launch.when_resident
    assert launch.cluster == 4 and plain.cluster == 1 and plain.source != launch.source

    def phases(launch):
        return ((Part(launch, (0, 1, 2, 3, 4)),), (Part(launch, (0, 1, 2, 3, 4)),))

    assert Composition(phases(plain), 6, 264, state=5).cluster == 1
    with pytest.raises(ValueError, match="a resident grid cannot be in clusters"):
        Composition(phases(launch), 6, 264, state=5)


# GLM-5.1 and DeepSeek-V3.2, a rank of eight; one wide; the awkward ones.
SHAPES = ((2624, 6144), (6144, 2048), (2112, 7168), (3072, 1536), (16384, 2048), (16, 128), (144, 1024), (48, 384))
SHAPES += ((4096, 6144), (24576, 1536))  # more columns than are under way, and several groups at once


def test_memory_lies_as_the_body_asks():
    """Rows of a warpgroup's product are exchanged by the bits of their addresses."""
    alignment = re.compile(r"^.*\.shared \.align (\d+) \.b8", re.M)
    for rows in (8, 64):
        assert alignment.findall(ptx_of(side_by_side(gemm(rows, 2048, 2048)))) == ["1024"]
    assert alignment.findall(ptx_of(side_by_side(gemm(65, 2048, 2048)))) == ["16"]


@pytest.mark.parametrize("rows", [1, 8, 9, 16, 32, 33, 64])
def test_every_rows_kernel_fits(rows):
    """Registers, workgroup memory and arguments, as `check_launch` reads them from the assembler."""
    for outputs, columns in SHAPES:
        launch = gemm(rows, outputs, columns)
        shape = outputs, columns
        assert launch.source == "gemm_fp8_blockscale_warpgroups.hip"
        assert shape != (6144, 2048) or launch.cluster == 2
        # Rows of few groups are not cut, nor are those of a weight that fills the chip as long as they fit in memory.
        most_whole = {(16, 128): 64, (48, 384): 64, (16384, 2048): 32, (24576, 1536): 48}
        whole = rows <= most_whole.get(shape, 0)
        assert (launch.cluster == 1) == whole
        ptx_of(side_by_side(launch))


@pytest.mark.parametrize("rows", [1, 5, 8, 9, 24, 25, 33, 63, 64, 65])
def test_every_rows_float_kernel_fits(rows):
    for outputs, columns in ((256, 6144), (32, 7168), (13, 96), (9000, 64)):
        launch = linear(rows, outputs, columns)
        # A weight that fills the chip is shared by a cluster only at few rows.
        assert (launch.source == "linear_bf16_split.hip") == (rows <= (24 if outputs == 9000 else 64))
        ptx_of(side_by_side(launch))
