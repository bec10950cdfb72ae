"""What the indexer computes for a row has the same bits whatever the other rows are, in what order, how many, and with
padding rows among them: gfx942 machine code on the emulated device, and the CPU."""

import iree.runtime as rt
import numpy as np
import pytest
import torch

from predecode.custom_kernels.layouts import PRESHUFFLED_PAGE
from predecode.custom_kernels.op import OPS
from predecode.custom_kernels.targets import CPU, GFX942, Target
from predecode.export.tensors import to_numpy
from predecode.pipelines import emulation
from tests.custom_kernels.cases.block_scaled import elements
from tests.custom_kernels.cases.case import Case
from tests.custom_kernels.cases.paged_mqa_logits import random_pages
from tests.custom_kernels.cases.rotation import random_slots, scattered_positions, table
from tests.custom_kernels.compiled_cases import compile_cases, load, tensors_of
from tests.custom_kernels.reference_indexer import key_offset, scale_bytes

ROWS, PADDING, PAGES, WIDTH, TOPK = 9, -1, 40, 12, 96
LENGTHS = torch.tensor([700, 97, 96, 5, 768, 130, 191, 192, 333], dtype=torch.int32)
SELECTIONS = {
    "all": list(range(ROWS)),
    "reversed": list(range(ROWS))[::-1],
    "alone": [4],
    "the last alone": [ROWS - 1],
    "padding between": [PADDING, 6, PADDING, PADDING, 0, 8, PADDING],
    "one many times": [5, 5, 1, 5],
}


class _Rows:
    """Rows of an op's inputs; ``arguments(selection)`` gives a call with some, ``results_of`` their bytes."""

    def __init__(self, target: Target):
        self.generator = torch.Generator().manual_seed(21)
        self.element_format = target.element_format

    def pick(self, tensor: torch.Tensor, selection: list[int], padding=None) -> torch.Tensor:
        picked = tensor[[max(row, 0) for row in selection]]
        if padding is not None:
            picked[torch.tensor(selection) == PADDING] = padding
        return picked


class PagedMqaLogits(_Rows):
    name = "paged_mqa_logits"

    def __init__(self, target: Target):
        super().__init__(target)
        self.query = elements(self.generator, (ROWS, 32, 128), self.element_format)
        self.weights = torch.randn(ROWS, 32, generator=self.generator)
        self.cache = random_pages(self.generator, PAGES, self.element_format)
        self.block_table = torch.randint(0, PAGES, (ROWS, WIDTH), generator=self.generator, dtype=torch.int32)

    def arguments(self, selection):
        lengths = self.pick(LENGTHS, selection, padding=0)
        rows = [self.pick(t, selection) for t in (self.query, self.weights)]
        return *rows, self.cache, self.pick(self.block_table, selection), lengths, TOPK

    def results_of(self, selection, logits):
        lengths = [int(LENGTHS[row]) for row in selection]
        return [row[: n if n > TOPK else 0] for row, n in zip(logits, lengths, strict=True)]


class TopkSlots(_Rows):
    name = "topk_slots"

    def __init__(self, target: Target):
        super().__init__(target)
        self.logits = torch.randn(ROWS, WIDTH * 64, generator=self.generator).round(decimals=1)  # some are equal
        self.block_table = torch.randint(0, PAGES, (ROWS, WIDTH), generator=self.generator, dtype=torch.int32)

    def arguments(self, selection):
        lengths = self.pick(LENGTHS, selection, padding=0)
        return self.pick(self.logits, selection), lengths, self.pick(self.block_table, selection), TOPK

    def results_of(self, selection, slots):
        return list(slots)


class IndexerQPrepare(_Rows):
    name = "indexer_q_prepare"

    def __init__(self, target: Target):
        super().__init__(target)
        self.q = torch.randn(ROWS, 3 * 128, generator=self.generator).bfloat16()
        self.gates = torch.randn(ROWS, 3, generator=self.generator)
        self.positions = scattered_positions(self.generator, ROWS, 200)

    def arguments(self, selection):
        rows = [self.pick(t, selection) for t in (self.q, self.gates)]
        return *rows, table(200), self.pick(self.positions, selection), "interleaved", self.element_format.name

    def results_of(self, selection, values, weights):
        values = values.view(np.uint8).reshape(len(selection), -1)
        return [np.concatenate((v, w.view(np.uint8))) for v, w in zip(values, weights, strict=True)]


class IndexerKPrepareAndCache(_Rows):
    name = "indexer_k_prepare_and_cache"

    def __init__(self, target: Target):
        super().__init__(target)
        self.k = torch.randn(ROWS, 128, generator=self.generator).bfloat16()
        self.norm = [torch.randn(128, generator=self.generator).bfloat16() for _ in range(2)]
        self.positions = scattered_positions(self.generator, ROWS, 200)
        self.slots = random_slots(self.generator, ROWS, 2)
        self.cache = torch.randint(-128, 128, (2, PRESHUFFLED_PAGE.page_bytes(1)), dtype=torch.int8)

    def arguments(self, selection):
        seen = [row if row not in selection[:i] else PADDING for i, row in enumerate(selection)]  # a slot once a step
        positions, slots = self.pick(self.positions, seen), self.pick(self.slots, seen, padding=-1)
        page = PRESHUFFLED_PAGE.name, self.element_format.name
        return (self.pick(self.k, seen), *self.norm, 1e-6, table(200), positions, self.cache, slots, "halves", "ue8m0",
                *page)  # fmt: skip

    def results_of(self, selection, cache):
        return [np.concatenate(self._token(cache, int(self.slots[row]))) for row in selection]

    def _token(self, cache, slot):
        page, token = cache[slot // 64].view(np.uint8), slot % 64
        return page[[key_offset(token, dim, PRESHUFFLED_PAGE.name) for dim in range(128)]], page[scale_bytes(token, 1)]


@pytest.mark.parametrize("target", [CPU, GFX942], ids=["cpu", "gfx942"])
@pytest.mark.parametrize("rows_of", [PagedMqaLogits, TopkSlots, IndexerQPrepare, IndexerKPrepareAndCache])
def test_rows_do_not_depend_on_each_other(rows_of, target):
    load(rows_of.name, target.element_format)
    rows = rows_of(target)
    cases = [Case(label, rows.arguments(selection), ()) for label, selection in SELECTIONS.items()]
    emulated = target.device == "hip"
    device = emulation.open_device(target.arch, strict=True) if emulated else rt.get_device("local-sync")
    results = dict(zip(SELECTIONS, _run(compile_cases(OPS[rows.name], cases, target), cases, device), strict=True))
    every = rows.results_of(SELECTIONS["all"], *results["all"])
    assert len({row.tobytes() for row in every if row.size}) >= ROWS - 2  # two rows have no more than topk tokens
    for label, selection in SELECTIONS.items():
        for row, given in zip(selection, rows.results_of(selection, *results[label]), strict=True):
            assert row == PADDING or np.array_equal(given, every[row]), (label, row)


def _run(vmfb: bytes, cases: list[Case], device: rt.HalDevice) -> list[list[np.ndarray]]:
    config = rt.Config(device=device)
    module = rt.load_vm_module(rt.VmModule.copy_buffer(config.vm_instance, vmfb), config)
    results = []
    for i, case in enumerate(cases):
        given = module[f"case_{i}"](*(rt.asdevicearray(device, to_numpy(tensor)) for tensor in tensors_of(case)))
        given = given if isinstance(given, tuple) else (given,)
        results.append([np.array(result.to_host()) for result in given])  # a copy: the buffer is the device's
    return results
