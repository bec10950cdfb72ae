"""The audit of compiled modules: what it lists, and each fault it must find."""

import pytest
import torch

from predecode.custom_kernels.targets import CPU
from predecode.custom_kernels.toolchain import Toolchain
from predecode.export.audit import AuditError, audit_entry_points
from predecode.export.compile import compile_module
from predecode.export.inject import inject
from predecode.export.trace import Program, trace
from predecode.pipelines.manifest import Exemption


class Function(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *tensors):
        return self.function(*tensors)


def audit(function, names, *tensors, exemptions=()):
    module = trace([Program("entry", Function(function), tensors)], CPU, lambda name: None)
    injection = inject(module, CPU, Toolchain())
    compiled = compile_module(module, injection.kernels, CPU, Toolchain())
    names = {"entry": names}
    return audit_entry_points(compiled.stream_ir, compiled.hal_ir, names, exemptions, injection.touched)["entry"]


def test_a_module_that_only_computes():
    report = audit(lambda x, y: x @ y + 1, ("x", "y"), torch.zeros(8, 64), torch.zeros(64, 32))
    assert (report.copies, report.fills, report.exempted, report.in_place) == (0, 0, (), ())
    assert all(d.kind == "compiled" for d in report.dispatches)
    bindings = [b for d in report.dispatches for b in d.bindings]
    assert {b.name: b.bytes for b in bindings if b.name in "xy"} == {"x": 8 * 64 * 4, "y": 64 * 32 * 4}
    assert [b.bytes for b in bindings if b.name == "result"] == [8 * 32 * 4]
    assert all(min(d.workgroups) >= 1 for d in report.dispatches)


def test_a_kernel_is_named_and_writes_its_argument_in_place():
    import predecode.custom_kernels.indexer_k_quant_and_cache  # noqa: F401  defines the op

    def store(k, cache, slots):
        return torch.ops.predecode.indexer_k_quant_and_cache(k, cache, slots, "ue8m0", "preshuffled page", "e4m3fn")

    key, cache = torch.zeros(4, 128, dtype=torch.bfloat16), torch.zeros(8, 8448, dtype=torch.int8)
    report = audit(store, ("k", "cache", "slots"), key, cache, torch.arange(4))
    assert [(d.name, d.kind) for d in report.dispatches] == [("indexer_k_quant_and_cache", "kernel")]
    assert report.in_place == ("cache",)
    assert report.copies == report.transient_bytes == 0
    (dispatch,) = report.dispatches
    assert dispatch.bytes_written == 4 * 132, "four tokens of the pool, not the pool"
    assert dispatch.bytes_read == 4 * 128 * 2 + 4 * 8


def overwrite_then_read_old(cache, x, slots):
    return cache.index_put((slots,), x), cache.sum()


def test_a_cache_copied_because_its_old_value_is_read():
    arguments = torch.zeros(64, 16), torch.zeros(4, 16), torch.arange(4)
    with pytest.raises(AuditError, match=r"entry: the compiled module contains a copy; change the ops"):
        audit(
            overwrite_then_read_old,
            ("cache", "x", "slots"),
            *arguments,
            exemptions=(Exemption("*scatter*", "test"),),
        )


def scatter_into_zeros(x, slots):
    return torch.zeros(64, 16).index_put((slots,), x)


def test_a_fill():
    with pytest.raises(AuditError, match="the compiled module contains a fill"):
        audit(
            scatter_into_zeros,
            ("x", "slots"),
            torch.zeros(4, 16),
            torch.arange(4),
            exemptions=(Exemption("*scatter*", "test"),),
        )


def transpose(x):
    return x.transpose(0, 1).contiguous()


def test_a_dispatch_that_only_moves_data():
    with pytest.raises(AuditError, match=r"dispatch dispatch_0_transpose.*, which only moves data"):
        audit(transpose, ("x",), torch.zeros(32, 64))


def test_an_exemption_is_recorded_with_its_reason():
    report = audit(transpose, ("x",), torch.zeros(32, 64), exemptions=(Exemption("*_transpose_*", "for the test"),))
    assert [e.reason for e in report.exempted] == ["for the test"]
    assert "transpose" in report.exempted[0].name


def test_a_transpose_with_arithmetic_is_no_fault():
    report = audit(lambda x: x.transpose(0, 1) * 2, ("x",), torch.zeros(32, 64))
    assert report.exempted == ()
