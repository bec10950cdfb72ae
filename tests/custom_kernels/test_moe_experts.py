"""`moe_gate_up` and `moe_down` against a loop over the (row, expert) pairs."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels import moe_down as down
from predecode.custom_kernels import moe_gate_up as gate_up
from predecode.custom_kernels.formats import ELEMENT_FORMATS
from predecode.custom_kernels.layouts import GROUP_MAJOR_SCALES, ROW_MAJOR, TILED_16X16, LayoutError
from predecode.custom_kernels.values import BlockScaledWeight, QuantizedActivation
from tests.custom_kernels.cases import moe_down as down_cases
from tests.custom_kernels.cases import moe_gate_up as gate_up_cases
from tests.custom_kernels.cases.case import mismatch
from tests.custom_kernels.reference_formats import block_scaled_product


def _rounded(total: np.ndarray, values: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(total).to(torch.bfloat16 if values.dtype.itemsize == 1 else torch.float32)


def brute_gate_up(values, scales, expert_ids, weight, weight_scales) -> torch.Tensor:
    rows = [
        block_scaled_product(values[t : t + 1], scales[:, t : t + 1], weight[e], weight_scales[e])[0]
        for t, experts in enumerate(expert_ids.tolist())
        for e in experts
    ]
    return _rounded(np.stack(rows), values)


def brute_down(values, scales, expert_ids, expert_weights, weight, weight_scales) -> torch.Tensor:
    total = np.zeros((len(expert_ids), weight.shape[1] * 16))
    for t, experts in enumerate(expert_ids.tolist()):
        for j, e in enumerate(experts):
            pair = t * len(experts) + j
            u = values[pair : pair + 1], scales[:, pair : pair + 1]
            total[t] += expert_weights[t, j].item() * block_scaled_product(*u, weight[e], weight_scales[e])[0]
    return _rounded(total, values)


OPS = {
    "moe_gate_up": (gate_up_cases.cases, gate_up.OP, brute_gate_up),
    "moe_down": (down_cases.cases, down.OP, brute_down),
}
ALL = [
    pytest.param(op, brute, case, id=f"{name}-{format_name}-{case.label}")
    for name, (cases, op, brute) in OPS.items()
    for format_name, element_format in sorted(ELEMENT_FORMATS.items())
    for case in cases(element_format)
]


@pytest.mark.parametrize(("op", "brute", "case"), ALL)
def test_equals_the_loop(op, brute, case):
    assert mismatch(op.overload(*case.arguments), brute(*case.arguments), case.compare[0]) is None


@pytest.mark.parametrize("name", sorted(OPS))
def test_wrong_experts_and_scales_are_noticed(name):
    cases, op, brute = OPS[name]
    case = next(c for c in cases(ELEMENT_FORMATS["e4m3fn"]) if c.label == "last scale block partly full")
    values, scales, expert_ids, *between, weight, weight_scales = case.arguments
    expected = brute(*case.arguments)
    wrong = {
        "pairs in another order": (values, scales, expert_ids.flip(1), *between, weight, weight_scales),
        "scales of another row": (values, scales.flip(1), expert_ids, *between, weight, weight_scales),
        "weight scales of another expert": (
            values,
            scales,
            expert_ids,
            *between,
            weight,
            weight_scales.roll(1, 0),
        ),
        "tiles transposed": (
            values,
            scales,
            expert_ids,
            *between,
            weight.transpose(3, 4).contiguous(),
            weight_scales,
        ),
    }
    for label, arguments in wrong.items():
        assert mismatch(op.overload(*arguments), expected, case.compare[0]), label


@pytest.mark.parametrize("name", sorted(OPS))
def test_opcheck(name):
    cases, op, _ = OPS[name]
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(op.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrappers_refuse_other_layouts_and_shapes():
    values, scales, ids, weight, weight_scales = gate_up_cases.cases(ELEMENT_FORMATS["e4m3fn"])[1].arguments
    x = QuantizedActivation(values, scales, GROUP_MAJOR_SCALES)
    w = BlockScaledWeight(weight, weight_scales, TILED_16X16)
    assert gate_up.moe_gate_up(x, ids, w).shape == (6, 32)
    with pytest.raises(LayoutError, match=r"tiled-16x16.*row-major"):
        gate_up.moe_gate_up(x, ids, BlockScaledWeight(weight, weight_scales, ROW_MAJOR))
    with pytest.raises(TypeError, match="expert ids are"):
        gate_up.moe_gate_up(x, ids.long(), w)
    with pytest.raises(ValueError, match="have no experts"):
        gate_up.moe_gate_up(x, ids, BlockScaledWeight(weight[0], weight_scales[0], TILED_16X16))
    with pytest.raises(ValueError, match=r"\[2, 256\] and"):
        gate_up.moe_gate_up(x, ids[:2], w)
    with pytest.raises(TypeError, match="like the expert ids"):
        down.moe_down(x, ids, torch.ones(3, 1), w)
    with pytest.raises(ValueError, match=r"\[6, 256\] and"):
        down.moe_down(x, ids, torch.ones(3, 2), w)
