"""The list of (row, expert) pairs that every workgroup of the experts' kernels makes for itself."""

import numpy as np
import pytest

from predecode.custom_kernels.composition import Composition
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.targets import TARGETS
from predecode.custom_kernels.toolchain import Toolchain
from tests.pipelines.emulation.hip_calls import SUCCESS, Hip

ROWS, EXPERTS_PER_ROW, THREADS = 60, 10, 256
PAIRS = ROWS * EXPERTS_PER_ROW
SOURCE = """
#include "expert_pairs.h"

using Shared = ExpertPairs<EXPERTS, PAIRS>;

DEVICE void list_pairs(Workgroup workgroup, Shared &shared, const int *ids, int *pairs) {
  gather_pairs<EXPERTS_PER_ROW>(ids, PAIRS, shared);
  for (int i = thread_id(); i < PAIRS; i += GATHER_THREADS) pairs[i] = shared.pairs[i];
}
"""


@pytest.mark.parametrize("distinct", [True, False], ids=["each expert once in a row", "perhaps several times"])
@pytest.mark.parametrize("experts", [11, 300])
@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
def test_pairs_of_an_expert_ascend(tmp_path, arch, experts, distinct):
    """Workgroups share an expert's chunks, so their lists must be equal, in whatever order their waves count."""
    (tmp_path / "list_pairs.hip").write_text(SOURCE)
    launch = Launch(
        source=str(tmp_path / "list_pairs.hip"),
        symbol="list_pairs",
        operands=("ids",),
        constants=(),
        workgroups=(1, 1, 1),
        workgroup_size=(THREADS, 1, 1),
        defines=(("EXPERTS", experts), ("PAIRS", PAIRS), ("EXPERTS_PER_ROW", EXPERTS_PER_ROW)),
    )
    code = Toolchain().build(Composition.of(launch, 2), TARGETS[arch])
    random = np.random.default_rng(0)
    rows = [random.choice(experts, EXPERTS_PER_ROW, replace=not distinct) for _ in range(ROWS)]
    ids = np.concatenate(rows).astype(np.int32)
    hip = Hip(arch, strict=True)
    try:
        pairs = hip.malloc(PAIRS * 4)
        assert hip.launch(hip.function(code.data, "list_pairs"), (1,), (THREADS,), hip.upload(ids), pairs) == SUCCESS, (
            hip.fault()
        )
        np.testing.assert_array_equal(hip.download(pairs, PAIRS, np.int32), np.argsort(ids, kind="stable"))
    finally:
        hip.unload_all()
