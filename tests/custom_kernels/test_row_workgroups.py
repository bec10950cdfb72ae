"""How the norms divide rows among workgroups: what the rule keeps, and that every division stores the whole row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predecode.custom_kernels import row_workgroups
from predecode.custom_kernels.row_workgroups import chunks_of, row_parts
from predecode.custom_kernels.targets import GFX942, GFX950, SM_90
from predecode.pipelines import emulation
from tests.custom_kernels.compiled_cases import compile_cases, load, run_cases


@given(st.sampled_from([GFX942, GFX950, SM_90]), st.integers(1, 1000), st.integers(1, 80))
def test_parts_of_a_row(target, rows, groups):
    parts = row_parts(target, rows, 128 * groups)
    assert 1 <= parts <= chunks_of(128 * groups)
    assert parts == 1 or 2 * rows * parts <= target.compute_units


def test_glm_rows_on_the_h200():
    assert [row_parts(SM_90, rows, 6144) for rows in (4, 16, 32, 33, 64)] == [3, 3, 2, 2, 1]


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("name", ["add_rms_norm_group_quant", "rms_norm_group_quant"])
def test_any_number_of_parts_stores_the_row(name, parts, monkeypatch):
    monkeypatch.setattr(row_workgroups, "row_parts", lambda *_: parts)
    op, cases = load(name, GFX942.element_format)
    wide = [case for case in cases if case.label in ("2 rows of 2176", "2 rows of 4096", "GLM-5.1", "DeepSeek-V3.2")]
    assert len(wide) == 4
    device = emulation.open_device(GFX942.arch, strict=True)
    assert not [fault for _, fault in run_cases(op, wide, compile_cases(op, wide, GFX942), device) if fault]
