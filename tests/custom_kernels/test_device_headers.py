"""Device headers run on the host: index maps against layouts.py, bfloat16 against torch."""

import ctypes

import numpy as np
import pytest
import torch

from predecode.custom_kernels.composition import Composition
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import (
    GROUP,
    GROUP_MAJOR_SCALES,
    INDEXER_HEAD_DIM,
    PAGE_TOKENS,
    PLAIN_PAGE,
    PRESHUFFLED_PAGE,
    ROW_MAJOR,
    ROW_MAJOR_SCALES,
    TILE,
    TILED_16X16,
)
from predecode.custom_kernels.split_k import SLICES, join_partials
from predecode.custom_kernels.targets import TARGETS
from predecode.custom_kernels.toolchain import DEVICE_HEADERS, Toolchain
from tests.custom_kernels.host_library import load_source

SOURCE = """
#include "bf16.h"
#include "layouts.h"
#include "split_k.h"

#define MAP(name, expression)                                              \\
  extern "C" void name(int64 rows, int64 columns, int64 *offsets) {        \\
    for (int64 row = 0; row < rows; ++row)                                 \\
      for (int64 column = 0; column < columns; ++column) *offsets++ = expression; \\
  }
MAP(row_major, row_major_offset(row, column, columns))
MAP(tiled, tiled_16x16_offset(row, column, columns))
MAP(transposed_tiles, tiled_16x16_offset(column, row, rows))
MAP(row_major_scales, row_major_scale_offset(row, column, columns))
MAP(group_major_scales, group_major_scale_offset(row, column, rows))
MAP(plain_key, plain_page_key_offset(row, column))
MAP(preshuffled_key, preshuffled_page_key_offset(row, column))
MAP(page_scale, page_scale_offset(row))
MAP(slot, slot_offset(row * 1000003, 576))

#define PARTIALS(name, rows, outputs)                                      \\
  extern "C" void name(int64 slices, int64, int64 *offsets) {              \\
    using Partials = SplitKPartials<rows, outputs>;                        \\
    for (int slice = 0; slice < slices; ++slice)                           \\
      for (int row = 0; row < rows; ++row) {                               \\
        for (int output = 0; output < outputs; ++output) *offsets++ = Partials::term(slice, row, output); \\
        *offsets++ = Partials::mean_square(slice, row);                    \\
      }                                                                    \\
  }
PARTIALS(partials_3_7, 3, 7)
PARTIALS(partials_64_256, 64, 256)

extern "C" void constants(int64 *values) {
  values[0] = GROUP, values[1] = TILE, values[2] = PAGE_TOKENS, values[3] = INDEXER_HEAD_DIM;
  values[4] = INDEXER_PAGE_BYTES;
}
extern "C" void bf16_round_trip(int64 count, const float *values, uint16 *stored, float *back) {
  for (int64 i = 0; i < count; ++i) stored[i] = to_bf16(values[i]), back[i] = from_bf16(stored[i]);
}
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    return load_source(SOURCE, tmp_path_factory.mktemp("headers"))


def offsets(host, name: str, rows: int, columns: int) -> np.ndarray:
    result = np.full((rows, columns), -1, dtype=np.int64)
    getattr(host, name)(ctypes.c_int64(rows), ctypes.c_int64(columns), result.ctypes.data_as(ctypes.c_void_p))
    return result


def grid(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(rows)[:, None], np.arange(columns)[None]


def test_constants(host):
    values = np.zeros(5, dtype=np.int64)
    host.constants(values.ctypes.data_as(ctypes.c_void_p))
    assert values.tolist() == [GROUP, TILE, PAGE_TOKENS, INDEXER_HEAD_DIM, PRESHUFFLED_PAGE.page_bytes(1)]


@pytest.mark.parametrize("shape", [(16, 16), (16, 128), (64, 128), (128, 48), (512, 6144)])
def test_element_maps(host, shape):
    row, column = grid(*shape)
    assert (offsets(host, "row_major", *shape) == ROW_MAJOR.offset(row, column, shape[1])).all()
    assert (offsets(host, "tiled", *shape) == TILED_16X16.offset(row, column, shape[1])).all()


@pytest.mark.parametrize("rows, groups", [(1, 1), (3, 5), (64, 48), (65, 1)])
def test_scale_maps(host, rows, groups):
    row, group = grid(rows, groups)
    for name, layout in (("row_major_scales", ROW_MAJOR_SCALES), ("group_major_scales", GROUP_MAJOR_SCALES)):
        expected = np.broadcast_to(layout.offset(row, group, rows, groups), (rows, groups))
        assert (offsets(host, name, rows, groups) == expected).all(), name


def test_page_maps(host):
    token, dim = grid(PAGE_TOKENS, INDEXER_HEAD_DIM)
    for name, page in (("plain_key", PLAIN_PAGE), ("preshuffled_key", PRESHUFFLED_PAGE)):
        assert (offsets(host, name, PAGE_TOKENS, INDEXER_HEAD_DIM) == page.key_offset(token, dim, 1)).all(), name
    assert (offsets(host, "page_scale", PAGE_TOKENS, 1) == PRESHUFFLED_PAGE.scale_offset(token, 1)).all()


def test_slots_beyond_two_gigabytes(host):
    assert (offsets(host, "slot", 2000, 1)[:, 0] == np.arange(2000) * 1000003 * 576).all()


@pytest.mark.parametrize(("rows", "outputs"), [(3, 7), (64, 256)])
def test_partial_sums(host, rows, outputs):
    places = offsets(host, f"partials_{rows}_{outputs}", SLICES, rows * (outputs + 1))
    # By slice and row: the terms, then the mean square.
    numbers = torch.arange(places.size).reshape(SLICES, rows, outputs + 1)
    stored = join_partials(numbers[..., :outputs], numbers[..., outputs]).flatten()
    assert torch.equal(stored[torch.from_numpy(places.flatten())], numbers.flatten())
    squares_first = torch.cat([numbers[..., outputs], numbers[..., :outputs].flatten(1)], 1).flatten()
    assert not torch.equal(squares_first[torch.from_numpy(places.flatten())], numbers.flatten())


def test_another_map_is_noticed(host):
    row, column = grid(64, 128)
    expected = TILED_16X16.offset(row, column, 128)
    assert (offsets(host, "transposed_tiles", 64, 128) != expected).any()
    assert (offsets(host, "row_major", 64, 128) != expected).any()
    assert (offsets(host, "plain_key", 64, 128) != offsets(host, "preshuffled_key", 64, 128)).any()


def test_bf16_rounds_as_torch(host):
    high = torch.arange(2**16, dtype=torch.int64)[:, None] << 16
    low = torch.tensor([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
    bits = (high + low).reshape(-1)
    values = torch.where(bits >= 2**31, bits - 2**32, bits).to(torch.int32).view(torch.float32)
    stored = torch.zeros(len(values), dtype=torch.int16)
    back = torch.zeros(len(values))
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (values, stored, back)]
    host.bf16_round_trip(ctypes.c_int64(len(values)), *pointers)
    expected, number = values.to(torch.bfloat16), ~values.isnan()
    assert torch.equal(stored[number], expected.view(torch.int16)[number])
    assert stored.view(torch.bfloat16)[~number].isnan().all() and (~number).sum() > 1000
    assert torch.equal(back[number], expected.float()[number])


@pytest.mark.parametrize("target", ["gfx942", "gfx950", "sm_90"])
def test_each_header_compiles_alone(target, tmp_path):
    headers = [path.name for path in sorted(DEVICE_HEADERS.glob("*.h")) if not path.name.startswith("cpu")]
    for header in headers:
        source = tmp_path / f"{header}.hip"
        source.write_text(f'#include "{header}"\nDEVICE void none(Workgroup workgroup) {{}}\n')
        launch = Launch(str(source), "none", (), (), (1, 1, 1))
        Toolchain(cache=tmp_path).build(Composition.of(launch, 0), TARGETS[target])
