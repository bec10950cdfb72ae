"""Every op that addresses a cache, in a pool beyond 4 GiB: gfx942 machine code on the emulated device, and the CPU.

`device_check` does the same on a real one.
"""

import iree.runtime as rt
import pytest
import torch

from predecode.custom_kernels.launch import KERNEL_FOLDER
from predecode.custom_kernels.targets import CPU, GFX942
from predecode.pipelines import emulation
from tests.custom_kernels.cases.case import mismatch
from tests.custom_kernels.compiled_cases import compile_cases
from tests.custom_kernels.large_pools import BYTES, CASES, LargePool


@pytest.mark.parametrize("target", [CPU, GFX942], ids=["cpu", "gfx942"])
@pytest.mark.parametrize("name", CASES)
def test_pages_beyond_32_bits(name, target):
    if target is CPU and not (KERNEL_FOLDER / f"{name}.cpp").exists():
        pytest.skip("the CPU has no kernel of its own")
    large = LargePool(name, target)
    assert large.first_page * large.pool.shape[1] > BYTES and large.strays() == 0
    emulated = target.device == "hip"
    device = emulation.open_device(target.arch, strict=True) if emulated else rt.get_device("local-sync")
    assert large.first_mismatch(compile_cases(large.op, [large.case], target), device, reads_host=True) is None


def test_a_wrapped_page_would_be_noticed():
    large = LargePool("paged_mqa_logits", CPU)
    arguments = list(large.small.arguments)
    wrapped = large.first_page * large.pool.shape[1] % BYTES // large.pool.shape[1]
    arguments[2] = torch.from_numpy(large.pool[wrapped : wrapped + len(arguments[2])])
    assert mismatch(large.op.reference(*arguments), large.op.reference(*large.small.arguments), large.small.compare[0])
    large.pool.reshape(-1)[large.pool[: large.first_page].nbytes % BYTES] = 1
    assert large.strays() > 0
