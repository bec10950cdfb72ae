"""Cases of single kernels, with stand-ins for the libraries: what they are handed, and how results are judged."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from tests.rivals import indexer_cases, kernel_case, stand_ins
from tests.rivals.attention_cases import attention_case, flash_rows, random_selection, reference_attention
from tests.rivals.gemm_cases import DENSE, dense_cases, even_routing, expert_cases
from tests.rivals.indexer_cases import logits_case, query_and_gates, reference_logits, selection_deviation, topk_case
from tests.rivals.kernel_case import KernelCase, check, measure
from tests.rivals.report import RivalError
from tests.rivals.torch_weights import Fp8Weight


@pytest.fixture
def ops(monkeypatch):
    """The ops of sglang-kernel, without registering any."""
    namespace = SimpleNamespace(
        fast_topk_transform_fused=stand_ins.fast_topk_transform_fused, sparse_decode_fwd=stand_ins.sparse_decode_fwd
    )
    monkeypatch.setattr(torch.ops, "sgl_kernel", namespace, raising=False)
    return namespace


def results_of(case: KernelCase, sets: int = 3) -> list:
    return [case.prepare(number)() for number in range(sets)]


@pytest.fixture(scope="module")
def fp8_layers(torch_layers):
    """As on a GPU: the dense matrices in FP8."""
    from tests.rivals.parameters import only_layer
    from tests.rivals.torch_weights import row_major

    layers = []
    for number, weights in zip(torch_layers.artifact.layers, torch_layers.weights, strict=True):
        layer = only_layer(torch_layers.artifact.load(number, torch.device("cpu")))
        attention = {name: row_major(getattr(layer.attention, name)) for name in ("qkv_a", "q_b", "o_proj")}
        indexer = weights.indexer._replace(wq_b=row_major(layer.indexer.wq_b))
        layers.append(weights._replace(attention=weights.attention._replace(**attention), indexer=indexer))
    return layers


def test_dense_products(fp8_layers):
    right, wrong = ([*dense_cases(stand_ins.DeepGemm(scale), fp8_layers, 4)] for scale in (1.0, 1.02))
    assert [case.ours for case in right] == [("gemm_fp8_blockscale", name) for name in DENSE]
    for case, other in zip(right, wrong, strict=True):
        assert check(case, results_of(case)) < 3e-3
        with pytest.raises(RivalError, match=r"wrong: deviates by 0\.02\d*, allowed 0\.005"):
            check(other, results_of(other))
    weight = fp8_layers[0].attention.qkv_a
    assert right[0].cold_bytes == weight.values.numel() + 4 * weight.scales.numel()


def test_sets_are_different_weights_in_memory_of_their_own(fp8_layers):
    seen = []

    class Spy(stand_ins.DeepGemm):
        def fp8_gemm_nt(self, a, b, d, compiled_dims):
            seen.append(b[0].data_ptr())
            super().fp8_gemm_nt(a, b, d, compiled_dims)

    case = next(dense_cases(Spy(), fp8_layers, 4))
    first, second, third = results_of(case)
    assert len(set(seen)) == 3 and not torch.equal(first, second) and torch.equal(first, third)


def test_products_with_the_weights_of_another_layer_are_noticed(fp8_layers):
    case = next(dense_cases(stand_ins.DeepGemm(), fp8_layers, 4))
    first, second, _ = results_of(case)
    with pytest.raises(RivalError, match="wrong"):
        check(case, [second, first])


def test_experts(torch_layers):
    for scale in (1.0, 0.98):
        for case in expert_cases(stand_ins.DeepGemm(scale), torch_layers.weights, 4, 2, 1):
            results = results_of(case, 2)
            if scale == 1.0:
                assert check(case, results) < 3e-3
            else:
                with pytest.raises(RivalError, match="wrong"):
                    check(case, results)


def test_even_routing_gives_every_row_its_experts():
    counts = even_routing(64, 257, 8, 1)
    assert counts.sum() == 64 * 9 and counts[256] == 64 and counts.max() <= 64
    # 256 * (1 - (1 - 8 / 256) ** 64) different routed ones are expected.
    assert abs(int((counts > 0).sum()) - 1 - 222.4) < 12


def test_scores(large_caches, large_step):
    right, wrong = (logits_case(stand_ins.DeepGemm(scale), large_caches, large_step, 32) for scale in (1.0, 1.01))
    assert check(right, results_of(right, 1)) < 1e-5
    with pytest.raises(RivalError, match="wrong"):
        check(wrong, results_of(wrong, 1))
    tokens = int(large_step.lengths.sum())
    assert (right.cold_bytes, right.bytes) == (tokens * 132, tokens * 136)


def test_scores_of_other_pages_are_noticed(large_caches, large_step):
    case = logits_case(stand_ins.DeepGemm(), large_caches, large_step, 32)
    turned = dataclasses.replace(large_step, block_table=large_step.block_table.roll(1, 1))
    other = logits_case(stand_ins.DeepGemm(), large_caches, turned, 32)
    with pytest.raises(RivalError, match="wrong"):
        check(case, results_of(other, 1))


def test_selection(ops, large_caches, large_step):
    case = topk_case(large_caches, large_step, 32, 2048)
    (result,) = results_of(case, 1)
    assert check(case, [result]) < 1e-6
    assert (result[1] >= 0).sum() == 65

    def deviation_of(change) -> float:
        changed = result.clone()
        change(changed)
        return case.deviation(0, changed)

    logits = reference_logits(*query_and_gates(32, large_step), large_caches, large_step)
    slots = indexer_cases.slots_of_positions(large_step)
    worst = slots[0][logits[0, :2100].argmin()]
    assert 1e-5 < deviation_of(lambda r: r[0].__setitem__(0, worst)) < 1
    assert deviation_of(lambda r: r[0].__setitem__(0, r[0, 1])) == float("inf"), "a slot twice"
    assert deviation_of(lambda r: r[0].__setitem__(0, r[1, 0])) == float("inf"), "another row's slot"
    assert deviation_of(lambda r: r[1].__setitem__(3, -1)) == float("inf"), "too few"
    assert deviation_of(lambda r: r.copy_(result.flip(1))) < 1e-6, "any order"
    assert selection_deviation(result[:1], logits[:1], slots[:1], large_step.lengths[:1]) < 1e-6


def test_other_numbers_of_tokens_than_sglang_selects(large_caches, large_step):
    with pytest.raises(RivalError, match="selects 2048 tokens, this model 64"):
        topk_case(large_caches, large_step, 32, 64)


def test_attention(ops, large_caches, large_step):
    case = attention_case(large_caches, large_step, 8, 512, 2048, 1 / 16)
    results = results_of(case, 2)
    assert check(case, results) < 5e-3
    tokens = 2048 + 65
    assert case.cold_bytes == tokens * 656
    with pytest.raises(RivalError, match="wrong"):
        check(case, [result.roll(1, 0) for result in results])
    other = attention_case(large_caches, large_step, 8, 512, 2048, 1 / 12)
    with pytest.raises(RivalError, match="wrong"):
        check(case, results_of(other, 2))


def test_the_attention_schedule_is_made_once(ops, large_caches, large_step):
    given = []
    inner = ops.sparse_decode_fwd

    def spy(*arguments):
        given.append(arguments[5])
        return inner(*arguments)

    ops.sparse_decode_fwd = spy
    results_of(attention_case(large_caches, large_step, 8, 512, 2048, 1 / 16), 3)
    assert given[0] is None and all(torch.is_tensor(schedule) for schedule in given[1:])


def test_attention_of_other_widths(torch_layers):
    from tests.rivals.inputs import plain_caches

    step = torch_layers.steps[4]
    with pytest.raises(RivalError, match=r"takes 512 \+ 64 elements, this model has 128 \+ 64"):
        attention_case(plain_caches(step), step, 4, 128, 64, 1.0)


def test_flash_rows_byte_by_byte(large_caches):
    rows = flash_rows(large_caches.latents).reshape(-1, 656).view(torch.uint8)
    latents = large_caches.latents
    assert torch.equal(rows[70, :512], latents[70, :512].view(torch.uint8))
    assert rows[70, 512:528].tolist() == [0, 0, 0x80, 0x3F] * 4, "four times one, little-endian"
    assert torch.equal(rows[70, 528:].clone().view(torch.bfloat16).float(), latents[70, 512:].float())


def test_reference_attention_by_hand():
    latents = torch.tensor([[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
    selected = torch.tensor([[1, 0, -1]])
    given = reference_attention(torch.tensor([[[0.0, 2.0]]]), latents, selected, 2, 0.5)
    high = torch.e / (1 + torch.e)
    assert given[0, 0].tolist() == pytest.approx([1 - high, high])


def test_selected_tokens_are_different_and_the_rows_own(large_step):
    selected = random_selection(large_step, 2048)
    slots = indexer_cases.slots_of_positions(large_step)
    for row, length in enumerate(large_step.lengths.tolist()):
        chosen = selected[row][selected[row] >= 0]
        assert len(chosen) == len(chosen.unique()) == min(length, 2048)
        assert set(chosen.tolist()) <= set(slots[row, :length].tolist())


def _case(**changes) -> KernelCase:
    fields = dict(op="op", name="a rival", rows=4, bytes=10, cold_bytes=0, ours=("op", ""), limit=0.1)
    functions = dict(prepare=lambda number: lambda: number, deviation=lambda number, result: 0.0)
    return KernelCase(**(fields | functions | changes))


def test_as_many_sets_as_keep_them_out_of_the_cache():
    assert _case().sets == kernel_case.FEWEST_SETS == 8
    assert _case(cold_bytes=20_000_000).sets == 16
    assert _case(cold_bytes=1).sets == 64


def test_first_second_and_last_set_are_checked():
    deviations = {0: 0.01, 1: 0.03, 7: 0.02}
    case = _case(deviation=lambda number, result: deviations[number])
    assert check(case, list(range(8))) == 0.03
    for wrong in (0, 1, 7):
        for bad in (0.2, float("nan")):
            changed = _case(deviation=lambda n, r, w=wrong, b=bad: b if n == w else 0.0)
            with pytest.raises(RivalError, match="wrong: deviates by"):
                check(changed, list(range(8)))


def test_a_kernel_that_cannot_run_gives_its_reason():
    result = measure(_case(), None)
    assert result.reason and not result.seconds and result.median is None


def test_layers_that_hold_their_matrices_in_bfloat16_have_no_dense_case(torch_layers):
    assert not any(isinstance(w.attention.qkv_a, Fp8Weight) for w in torch_layers.weights)
    assert not list(dense_cases(stand_ins.DeepGemm(), torch_layers.weights, 4))
