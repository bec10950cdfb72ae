"""Bytes that the audit counts for kernels linked into a CPU module, where several buffers share a binding."""

import pytest

from predecode.pipelines.artifact import read_manifest
from tests.export.conftest import export_tiny

ROWS = 4


@pytest.fixture(scope="module")
def dispatches(tmp_path_factory):
    """By name and the weight they read, those of one MoE layer of the tiny model at four rows."""
    folder = export_tiny(tmp_path_factory.mktemp("bytes") / "artifact", layers=(3,), rows=(ROWS,))
    (entry,) = read_manifest(folder).segments(ROWS)
    return {
        (d.name, next((b.name for b in d.bindings if b.name.endswith("values")), None)): d
        for d in entry.audit.dispatches
    }


def test_scratch_counts_as_far_as_it_is_used(dispatches):
    """qkv_a: 256 columns in, with two float32 scales a row; 320 columns of bf16 out."""
    gemm = dispatches["gemm_fp8_blockscale", "layers.3.attention.qkv_a.values"]
    scratch = {
        access: sum(b.bytes for b in gemm.bindings if b.access == access and b.name == "transient")
        for access in ("read", "write")
    }
    assert scratch == {"read": ROWS * (256 + 2 * 4), "write": ROWS * 320 * 2}


def test_experts_count_one_per_row_and_choice(dispatches):
    """Two routed experts per row, and a shared one, of 512 x 256 bytes each."""
    gate_up = dispatches["moe_gate_up", "layers.3.mlp.experts.gate_up.values"]
    sizes = {binding.name: binding.bytes for binding in gate_up.bindings}
    assert sizes["layers.3.mlp.experts.gate_up.values"] == (ROWS * 2 + 1) * 512 * 256


def test_a_cache_counts_as_far_as_a_row_can_see(dispatches):
    """256 tokens of 132 bytes per row for the indexer, 64 selected ones of 192 bytes for attention."""
    for name, kind, size in (("paged_mqa_logits", "indexer", 256 * 132), ("sparse_mla", "latent", 64 * 192)):
        (binding,) = (b for b in dispatches[name, None].bindings if b.name.endswith("cache"))
        assert (binding.name, binding.bytes) == (f"layers.3.{kind}_cache", ROWS * size)
