"""That the workgroups which an op names as the makers of a result are enough to make it."""

from dataclasses import replace

import pytest

from predecode.custom_kernels.op import OPS
from predecode.custom_kernels.targets import GFX942
from predecode.pipelines import emulation
from tests.custom_kernels.cases.case import mismatches
from tests.custom_kernels.compiled_cases import LoadedCases, as_tensor, compile_cases, load


def faults_with(monkeypatch, makers_left_out: int) -> list[str | None]:
    """What is wrong with the query that the first workgroups make of a case, without the last of them."""
    op, cases = load("latent_norms_and_cache", GFX942.element_format)
    case = next(case for case in cases if case.label == "65 rows")

    def launch(target, call):
        whole = op.launch(target, call)
        makers, of_scales, all_makers = whole.makers
        assert makers == of_scales == whole.workgroups[0] < all_makers
        return replace(whole, workgroups=(makers - makers_left_out, 1, 1), makers=())

    with monkeypatch.context() as patch:
        patch.setitem(OPS, op.name, replace(op, launch=launch))
        vmfb = compile_cases(op, [case], GFX942)
    results = LoadedCases(vmfb, emulation.open_device(GFX942.arch, strict=True)).run(0, case.arguments)
    expected = op.reference(*case.arguments)
    given = [as_tensor(array, wanted) for array, wanted in zip(results, expected, strict=True)]
    return mismatches(given, expected, case)


def test_the_first_workgroups_make_the_query(monkeypatch):
    values, scales, cache = faults_with(monkeypatch, 0)
    assert values is None and scales is None
    assert cache, "the others store the keys"


@pytest.mark.parametrize("left_out", [1, 2])
def test_no_fewer_do(monkeypatch, left_out):
    values, scales, _ = faults_with(monkeypatch, left_out)
    assert values and scales
