"""The ops that store into a cache write it in place, without a copy: as kernels and as compiled references."""

import iree.runtime as rt
import pytest
import torch

from predecode.custom_kernels.formats import FLOAT32
from predecode.custom_kernels.targets import CPU, GFX950, Target
from predecode.custom_kernels.toolchain import Toolchain
from predecode.export.audit import AuditError, audit_entry_points
from predecode.export.compile import compile_module
from predecode.export.inject import inject
from predecode.export.trace import Program, trace
from predecode.pipelines.manifest import Audit, Exemption
from tests.custom_kernels.compiled_cases import compile_cases, load, run_cases

OPS = ("indexer_k_prepare_and_cache", "indexer_k_quant_and_cache", "latent_norms_and_cache")
FILLS_OF_REFERENCES = {"latent_norms_and_cache": 1}
PAGES = 4096
COMPILED_REFERENCE = (
    Exemption("dispatch_*", "references spread their byte positions in a dispatch of its own"),
    Exemption("fill", "scales of what is not quantised are all one"),
)


class Store(torch.nn.Module):
    """An op's case with a large cache; takes the case's tensors."""

    def __init__(self, name: str, target: Target, quantized: bool):
        super().__init__()
        self.op, cases = load(name, target.element_format if quantized else FLOAT32)
        given = next(case for case in cases if "padding" in case.label).arguments
        names = [argument.name for argument in self.op.overload._schema.arguments]
        self.given = dict(zip(names, given, strict=True))
        self.given["cache"] = torch.zeros(PAGES, self.given["cache"].shape[1], dtype=torch.int8)

    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: value for name, value in self.given.items() if isinstance(value, torch.Tensor)}

    def forward(self, *tensors):
        return self.op.overload(*(self.given | dict(zip(self.tensors(), tensors, strict=True))).values())


class ReadThenStore(Store):
    """Stores, but keeps one byte of the old cache that is read beside the store."""

    def forward(self, *tensors):
        old = tensors[list(self.tensors()).index("cache")]
        result = super().forward(*tensors)
        result = result if isinstance(result, tuple) else (result,)
        return *result, old[0, :1] + result[-1][0, :1]


def audit_of(module: Store, target: Target) -> Audit:
    traced = trace([Program("main", module, tuple(module.tensors().values()))], target, lambda name: None)
    injection = inject(traced, target, Toolchain())
    compiled = compile_module(traced, injection.kernels, target, Toolchain())
    names = {"main": list(module.tensors())}
    audits = audit_entry_points(compiled.stream_ir, compiled.hal_ir, names, COMPILED_REFERENCE, injection.touched)
    return audits["main"]


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize(
    ("target", "quantized"),
    [(GFX950, True), (CPU, True), (CPU, False)],
    ids=["gfx950", "cpu", "cpu reference"],
)
def test_the_cache_is_written_in_place(name, target, quantized):
    audit = audit_of(Store(name, target, quantized), target)
    assert (audit.copies, audit.fills) == (0, 0 if quantized else FILLS_OF_REFERENCES.get(name, 0))
    assert audit.in_place == ("cache",)
    assert audit.transient_bytes < 1e6
    if quantized:
        assert [dispatch.kind for dispatch in audit.dispatches] == ["kernel"]


@pytest.mark.parametrize("name", OPS)
def test_a_copy_would_be_noticed(name):
    with pytest.raises(AuditError, match="a copy"):
        audit_of(ReadThenStore(name, GFX950, quantized=True), GFX950)


@pytest.mark.parametrize("name", OPS)
def test_compiled_references_leave_padding_rows_out(name):
    op, cases = load(name, FLOAT32)
    cases = [case for case in cases if case.label in ("all padding", "slot 0 beside padding")]
    assert len(cases) == 2
    module = compile_cases(op, cases, CPU)
    faults = [fault for _, fault in run_cases(op, cases, module, rt.get_device("local-sync"))]
    assert faults == [None, None]
