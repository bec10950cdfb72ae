"""The layer in plain torch against the model's definition, and what is said where it is wrong or cannot run."""

import dataclasses
import time

import pytest
import torch

from predecode.custom_kernels.router_topk import router_topk
from predecode.export.on_device import OnDevice
from tests.rivals import torch_experts
from tests.rivals.inputs import CachePools, plain_caches
from tests.rivals.layers import EAGER, TorchLayers, Variant, check_attention, check_layers, compiled_variants, run_until
from tests.rivals.report import RivalError
from tests.rivals.torch_layer import TorchLayer, rotate

CPU = torch.device("cpu")
EXPERTS = (torch_experts.grouped, torch_experts.gathered, torch_experts.gathered_in_one_pass)


@pytest.mark.parametrize("experts", EXPERTS)
@pytest.mark.parametrize("context", ["200", "40", "ragged"])
def test_layers_agree_with_the_model(artifact, torch_layers, experts, context):
    layers = torch_layers
    if context != "200":
        from predecode.pipelines.artifact import read_manifest

        layers = TorchLayers(layers.artifact, CachePools(read_manifest(artifact)), (4,), context, CPU)
    result = layers.run(Variant(experts, "host"), 4)
    assert result.reason is None and 0 < result.deviation < 0.07
    assert len(result.seconds) == 5 and min(result.seconds) > 0


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ("attention", "qkv_a"),
        ("attention", "q_b"),
        ("attention", "key_up"),
        ("attention", "value_up"),
        ("indexer", "wq_b"),
        ("attention", "o_proj"),
        ("experts", "norm"),
        ("experts", "router"),
    ],
)
def test_a_wrong_weight_is_noticed(torch_layers, part, field):
    """Each weight turned by one place makes a layer that is refused."""
    wrong = []
    for weights in torch_layers.weights:
        group = getattr(weights, part)
        turned = group._replace(**{field: getattr(group, field).roll(1, 0)})
        wrong.append(weights._replace(**{part: turned}))
    layers = _with_weights(torch_layers, wrong)
    result = layers.run(Variant(torch_experts.gathered, "host"), 4)
    assert result.reason.startswith("wrong: ") and not result.seconds


def test_wrong_caches_are_noticed(torch_layers):
    """Rows that read each other's pages."""
    step = torch_layers.steps[4]
    layers = _with_weights(torch_layers, torch_layers.weights)
    layers.steps = {4: dataclasses.replace(step, block_table=step.block_table.roll(1, 0))}
    assert layers.run(Variant(torch_experts.gathered, "host"), 4).reason.startswith("wrong: ")


def _with_weights(layers: TorchLayers, weights: list) -> TorchLayers:
    other = TorchLayers.__new__(TorchLayers)
    other.__dict__.update(layers.__dict__, weights=weights, _bfloat16=[])
    return other


def test_the_layer_compiles_whole_and_once_for_all_layers(torch_layers):
    step, graphs = torch_layers.steps[4], []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    layer = TorchLayer(torch_layers.artifact.config, torch_experts.gathered_in_one_pass, CPU)
    compiled = torch.compile(layer.__call__, fullgraph=True, dynamic=False, backend=count)
    with torch.no_grad():
        for weights in torch_layers.weights:
            eager = layer(weights, plain_caches(step), step, step.hidden, step.residual)
            again = compiled(weights, plain_caches(step), step, step.hidden, step.residual)
            assert torch.equal(eager[0], again[0]) and torch.equal(eager[1], again[1])
    assert len(graphs) == 1


def test_deviations_that_are_not_numbers_or_too_large():
    wanted = [(torch.ones(2, 8), torch.ones(2, 8))]
    assert check_layers([(wanted[0][0] * 1.01, wanted[0][1])], wanted) == pytest.approx(0.01, rel=1e-3)
    nan = torch.tensor([[float("nan")] * 8, [1.0] * 8])
    with pytest.raises(RivalError, match="wrong: half of the rows of the layer's result"):
        check_layers([(nan, wanted[0][1])], wanted)
    with pytest.raises(RivalError, match=r"deviate by 0\.2 or more, allowed 0\.1"):
        check_layers([(wanted[0][0] * 1.2, wanted[0][1])], wanted)
    with pytest.raises(RivalError, match=r"of the attention half's result deviate by 0\.4 or more, allowed 0\.35"):
        check_attention([(wanted[0][0], wanted[0][1] * 1.4)], wanted)
    assert check_attention([(nan, wanted[0][1])], wanted) == 0


def test_without_a_gpu_graphs_are_refused_by_name(torch_layers):
    for variant in EAGER:
        reason = torch_layers.run(variant, 4).reason
        assert reason == (None if variant.how == "host" else "needs an NVIDIA GPU")


def test_nothing_begins_after_the_deadline(torch_layers):
    (result,) = run_until(time.monotonic() - 1, torch_layers, [(EAGER[0], 4)])
    assert result.reason == "not run: the time was used up" and not result.seconds


def test_the_smaller_traffic_is_compiled_first():
    """Gathering reads an expert per pair, grouping each different expert once, twice as large."""
    order = compiled_variants((4, 64), 9, {4: 32.0, 64: 213.0})
    assert [(v.bfloat16_experts, rows) for v, rows in order] == [(False, 4), (True, 64), (True, 4), (False, 64)]


@pytest.mark.parametrize("interleaved", [True, False])
def test_rotation_by_a_quarter_turn(interleaved):
    x = torch.arange(1.0, 9.0)[None, None]
    turned = rotate(x, torch.zeros(1, 1, 4), torch.ones(1, 1, 4), interleaved)[0, 0].tolist()
    assert turned == ([-2, 1, -4, 3, -6, 5, -8, 7] if interleaved else [-5, -6, -7, -8, 1, 2, 3, 4])


def test_tensors_made_inside_ops_go_to_the_device():
    """An op's reference makes tensors of its own, which must not stay on the CPU."""
    arguments = torch.randn(2, 8), torch.zeros(8)
    options = dict(topk=2, groups=1, topk_groups=1, renormalize=True, scaling=1.0, shared_experts=0)
    with torch.device("meta"):
        assert router_topk(*arguments, **options)[0].device.type == "cpu"
    with OnDevice(torch.device("meta")), pytest.raises(RuntimeError, match="meta"):
        router_topk(*arguments, **options)
