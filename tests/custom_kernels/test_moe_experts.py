"""`moe_gate_up` and `moe_down` against a loop over the (row, expert) pairs."""

from functools import partial

import numpy as np
import pytest
import torch

from predecode.custom_kernels import moe_down as down
from predecode.custom_kernels import moe_gate_up as gate_up
from predecode.custom_kernels.formats import ELEMENT_FORMATS
from predecode.custom_kernels.layouts import GROUP_MAJOR_SCALES, ROW_MAJOR, TILED_16X16, LayoutError
from predecode.custom_kernels.op import Call
from predecode.custom_kernels.values import BlockScaledWeight, QuantizedActivation
from tests.custom_kernels.cases import moe_down as down_cases
from tests.custom_kernels.cases import moe_gate_up as gate_up_cases
from tests.custom_kernels.cases.case import mismatch
from tests.custom_kernels.reference_formats import block_scaled_product


def _rounded(total: np.ndarray, weight: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(total).to(torch.bfloat16 if weight.dtype.itemsize == 1 else torch.float32)


def brute_gate_up(
    values, scales, expert_ids, weight, weight_scales, shared_experts, rounds_products=True
) -> torch.Tensor:
    rows = [
        block_scaled_product(values[t : t + 1], scales[:, t : t + 1], weight[e], weight_scales[e])[0]
        for t, experts in enumerate(expert_ids.tolist())
        for e in experts
    ]
    products = _rounded(np.stack(rows), weight).double().numpy() if rounds_products else np.stack(rows)
    gate, up = np.split(products, 2, axis=1)
    with np.errstate(over="ignore"):
        return _rounded(gate / (1 + np.exp(-gate)) * up, weight)


def brute_down(values, scales, expert_ids, expert_weights, weight, weight_scales, shared_experts) -> torch.Tensor:
    total = np.zeros((len(expert_ids), weight.shape[1] * 16))
    for t, experts in enumerate(expert_ids.tolist()):
        for j, e in enumerate(experts):
            pair = t * len(experts) + j
            u = values[pair : pair + 1], scales[:, pair : pair + 1]
            total[t] += expert_weights[t, j].item() * block_scaled_product(*u, weight[e], weight_scales[e])[0]
    return _rounded(total, weight)


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


def case_of(name: str, label: str = "last scale block partly full"):
    return next(c for c in OPS[name][0](ELEMENT_FORMATS["e4m3fn"]) if c.label == label)


def arguments_by_name(op, case) -> dict:
    return dict(zip((argument.name for argument in op.overload._schema.arguments), case.arguments, strict=True))


@pytest.mark.parametrize("name", sorted(OPS))
def test_wrong_experts_and_weights_are_noticed(name):
    _, op, brute = OPS[name]
    case = case_of(name)
    given = arguments_by_name(op, case)
    expected = brute(*case.arguments)
    wrong = {
        "pairs in another order": {"expert_ids": given["expert_ids"].flip(1)},
        "values of another row": {"values": given["values"].flip(0)},
        "scales of another row": {"scales": given["scales"].flip(1)},
        "weight scales of another expert": {"weight_scales": given["weight_scales"].roll(1, 0)},
        "tiles transposed": {"weight": given["weight"].transpose(3, 4).contiguous()},
    }
    for label, changed in wrong.items():
        assert mismatch(op.overload(**(given | changed)), expected, case.compare[0]), label


def test_another_gate_is_noticed():
    case = case_of("moe_gate_up")
    values, scales, expert_ids, weight, weight_scales, shared = case.arguments
    expected = brute_gate_up(*case.arguments)
    # 160 rows: 80 gate rows, then 80 up rows; the scales of 128 rows are not exchanged with them.
    exchanged = gate_up.reference(values, scales, expert_ids, weight.roll(5, 1), weight_scales, shared)
    assert mismatch(exchanged, expected, case.compare[0]), "up before gate"
    unrounded = brute_gate_up(*case.arguments, rounds_products=False)
    assert not torch.equal(unrounded, expected), "products not rounded"


def test_other_shares_of_the_experts_are_noticed():
    case = case_of("moe_down")
    given = arguments_by_name(down.OP, case)
    exchanged = down.reference(**(given | {"expert_weights": given["expert_weights"].flip(1)}))
    assert mismatch(exchanged, brute_down(*case.arguments), case.compare[0])


@pytest.mark.parametrize(("rows", "shared", "counted"), [(1, 0, 3), (4, 0, 12), (4, 1, 9), (4, 3, 3), (99, 1, 20)])
@pytest.mark.parametrize("name", sorted(OPS))
def test_shared_experts_count_once(name, rows, shared, counted):
    """Of 20 experts, of which a row has three."""
    _, op, _ = OPS[name]
    weight, weight_scales = torch.empty(20, 2, 8, 16, 16, device="meta"), torch.empty(20, 1, 1, device="meta")
    ids = torch.empty(rows, 3, dtype=torch.int32, device="meta")
    call = Call({"expert_ids": ids, "weight": weight, "weight_scales": weight_scales, "shared_experts": shared}, ())
    sizes = {"weight": counted * 2 * 8 * 256 * 4, "weight_scales": counted * 4}
    assert op.touched_bytes(call) == sizes


@pytest.mark.parametrize("name", sorted(OPS))
def test_opcheck(name):
    cases, op, _ = OPS[name]
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(op.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrappers_refuse_other_layouts_and_shapes():
    values, scales, ids, weight, weight_scales, _ = case_of("moe_gate_up", "all rows alike").arguments
    x = QuantizedActivation(values, scales, GROUP_MAJOR_SCALES)
    w = BlockScaledWeight(weight, weight_scales, TILED_16X16)
    first = partial(gate_up.moe_gate_up, shared_experts=0)
    assert first(x, ids, w).shape == (6, 16)
    with pytest.raises(LayoutError, match=r"tiled-16x16.*row-major"):
        first(x, ids, BlockScaledWeight(weight, weight_scales, ROW_MAJOR))
    with pytest.raises(LayoutError, match="group-major"):
        first(QuantizedActivation(values, scales, ROW_MAJOR), ids, w)
    with pytest.raises(TypeError, match="expert ids are"):
        first(x, ids.long(), w)
    with pytest.raises(ValueError, match="have no experts"):
        first(x, ids, BlockScaledWeight(weight[0], weight_scales[0], TILED_16X16))
    with pytest.raises(ValueError, match=r"\[2, 256\] and"):
        first(x, ids[:2], w)
    with pytest.raises(ValueError, match="1 bands of 16 rows; expected an even number"):
        first(x, ids, BlockScaledWeight(weight[:, :1], weight_scales, TILED_16X16))
    values, scales, ids, expert_weights, weight, weight_scales, _ = case_of("moe_down", "all rows alike").arguments
    u = QuantizedActivation(values, scales, GROUP_MAJOR_SCALES)
    w = BlockScaledWeight(weight, weight_scales, TILED_16X16)
    second = partial(down.moe_down, shared_experts=0)
    assert second(u, ids, expert_weights, w).shape == (3, 32)
    with pytest.raises(TypeError, match="like the expert ids"):
        second(u, ids, torch.ones(3, 1), w)
    with pytest.raises(ValueError, match=r"\[6, 128\] and"):
        second(QuantizedActivation(values[:3], scales[:, :3], GROUP_MAJOR_SCALES), ids, expert_weights, w)
    with pytest.raises(LayoutError, match="group-major"):
        second(QuantizedActivation(values, scales, ROW_MAJOR), ids, expert_weights, w)
