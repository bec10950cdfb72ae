"""`q_absorb_rope_cat` against a loop over heads, rows and blocks."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels import topk_slots
from predecode.custom_kernels.composition import Composition, Part
from predecode.custom_kernels.formats import E4M3FN, E4M3FNUZ, ELEMENT_FORMATS
from predecode.custom_kernels.launch_check import check_launch
from predecode.custom_kernels.layouts import ROW_MAJOR, TILED_16X16, LayoutError
from predecode.custom_kernels.op import Call
from predecode.custom_kernels.q_absorb_rope_cat import OP, q_absorb_rope_cat
from predecode.custom_kernels.targets import GFX942, SM_90, Target
from predecode.custom_kernels.toolchain import Toolchain
from predecode.custom_kernels.values import BlockScaledWeight
from tests.custom_kernels.cases.case import mismatch
from tests.custom_kernels.cases.kv_b import dequantized_row
from tests.custom_kernels.cases.q_absorb_rope_cat import cases
from tests.custom_kernels.reference_quantize import encode
from tests.custom_kernels.reference_rotation import as_rounded, rotate_head

ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)]


def brute(q, weight, scales, table, positions, layout):
    element_format = next(f for f in ELEMENT_FORMATS.values() if f.dtype == weight.dtype)
    (rows, columns), (heads, _, latent), rope_dim = q.shape, weight.shape, table.shape[1]
    numbers = q.double().numpy().reshape(rows, heads, columns // heads)
    nope = numbers.shape[2] - rope_dim
    out = torch.empty(rows, heads, latent + rope_dim, dtype=weight.dtype)
    for head in range(heads):
        keys = np.stack([dequantized_row(weight, scales, head, n) for n in range(nope)])
        for row in range(rows):
            absorbed = as_rounded(numbers[row, head, :nope] @ keys, q.dtype)
            rotated = rotate_head(
                numbers[row, head, nope:].astype(np.float32), table[positions[row]].numpy(), layout, first=0
            )
            out[row, head] = encode(np.concatenate((absorbed, as_rounded(rotated, q.dtype))), element_format)
    return out


@pytest.mark.parametrize("case", ALL)
def test_equals_the_loop(case):
    assert mismatch(OP.overload(*case.arguments), brute(*case.arguments), case.compare[0]) is None


@pytest.mark.parametrize("element_format", [E4M3FN, E4M3FNUZ], ids=lambda f: f.name)
def test_other_definitions_are_noticed(element_format):
    case = next(c for c in cases(element_format) if c.label == "blocks that straddle heads")
    arguments = dict(zip((a.name for a in OP.overload._schema.arguments), case.arguments, strict=True))
    q, weight, scales, table, positions, _ = case.arguments
    heads = weight.shape[0]
    wrong = {
        "rope dims first": {"q": q.reshape(len(q), heads, -1).roll(64, 2).reshape(q.shape)},
        "heads exchanged": {"weight": weight.roll(1, 0)},
        "value rows": {"weight": weight.roll(96, 1)},
        "latent columns in another order": {"weight": weight.roll(1, 2)},
        "scales of the next rows": {"weight_scales": scales.roll(1, 0)},
        "scales of the next columns": {"weight_scales": scales.roll(1, 1)},
        "halves": {"rope_layout": "halves"},
        "sines before cosines": {"rope_table": table.roll(32, 1)},
        "a position off": {"positions": positions.roll(1)},
    }
    expected = brute(*case.arguments)
    for label, change in wrong.items():
        assert mismatch(OP.overload(*(arguments | change).values()), expected, case.compare[0]), label


def test_rotation_keeps_lengths_and_depends_on_distance_only():
    case = next(c for c in cases(ELEMENT_FORMATS["float32"]) if c.label == "halves")
    q, weight, scales, table, _, layout = case.arguments

    def score(position: int, distance: int) -> torch.Tensor:
        positions = torch.tensor([position + distance, position, 0, 0, 0])
        rope = OP.overload(q, weight, scales, table, positions, layout)[:, 0, 128:]
        assert torch.allclose(rope.norm(dim=1), q.reshape(5, 2, -1)[:, 0, 64:].norm(dim=1))
        return rope[0] @ rope[1]

    torch.testing.assert_close(score(3, 17), score(200, 17), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(score(3, 17), score(3, 18), rtol=1e-2)


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrapper_refuses_other_layouts_and_shapes():
    q, values, scales, table, positions, layout = cases(E4M3FN)[0].arguments
    weight = BlockScaledWeight(values, scales, ROW_MAJOR)
    assert q_absorb_rope_cat(q, weight, table, positions, layout).shape == (1, 4, 192)
    with pytest.raises(LayoutError, match=r"row-major.*tiled-16x16"):
        q_absorb_rope_cat(q, BlockScaledWeight(values, scales, TILED_16X16), table, positions, layout)
    with pytest.raises(ValueError, match=r"scales \[3, 1\]; expected"):
        q_absorb_rope_cat(q, BlockScaledWeight(values, scales[1:], ROW_MAJOR), table, positions, layout)
    with pytest.raises(ValueError, match=r"q is \[1, 511\], expected"):
        q_absorb_rope_cat(q[:, 1:], weight, table, positions, layout)
    with pytest.raises(ValueError, match=r"q is torch\.float32"):
        q_absorb_rope_cat(q.float(), weight, table, positions, layout)
    with pytest.raises(ValueError, match="neox"):
        q_absorb_rope_cat(q, weight, table, positions, "neox")
    with pytest.raises(ValueError, match="positions"):
        q_absorb_rope_cat(q, weight, table, positions.int(), layout)


def launch_of(target: Target, rows: int, heads: int, nope: int, rope: int = 64, layout: str = "interleaved"):
    """The launch for a latent of 512 columns."""
    arguments = {
        "q": torch.empty(rows, heads * (nope + rope), dtype=torch.bfloat16, device="meta"),
        "weight": torch.empty(heads, nope + 64, 512, dtype=target.element_format.dtype, device="meta"),
        "rope_table": torch.empty(64, rope, device="meta"),
        "rope_layout": layout,
    }
    return OP.launch_on(target, Call(arguments, ()))


def test_runs_beside_the_selection_on_nvidia():
    assert {launch_of(SM_90, rows, 8, 192).workgroup_size[0] for rows in (1, 16, 64)} == {topk_slots.THREADS}
    assert launch_of(SM_90, 64, 8, 208).workgroup_size == launch_of(GFX942, 64, 8, 192).workgroup_size == (256, 1, 1)
    assert launch_of(SM_90, 64, 8, 192, 64, "halves").workgroup_size == (256, 1, 1)
    resident = launch_of(SM_90, 64, 8, 192).when_resident
    assert resident.workgroup_size == (256, 1, 1) and resident.workgroups == (8, 8, 4)


@pytest.mark.parametrize("shape", [(8, 192), (16, 128), (64, 192), (3, 64, 128)])
@pytest.mark.parametrize("rows", [4, 17, 64])
def test_beside_the_selection_registers_suffice(rows, shape):
    """And alone, as it is exported serially."""
    absorb = launch_of(SM_90, rows, *shape)
    logits = {"logits": torch.empty(rows, 8192, device="meta"), "topk": 2048}
    select = topk_slots.OP.launch_on(SM_90, Call(logits, ()))
    together = Composition(((Part(select, (0, 1, 2, 3)), Part(absorb, (4, 5, 6, 7, 8, 9))),), 10)
    for composition in (together, Composition.of(absorb, 6)):
        check_launch(Toolchain().build(composition, SM_90), composition, SM_90)
