"""Every kernel of a layer of true size builds as it is exported by default: each op alone, without spills."""

import pytest

from predecode.custom_kernels.op import OPS
from predecode.export import exporter
from predecode.pipelines.command_line import main


class Built(Exception):
    """Raised in place of compiling the module around the kernels."""


def test_kernels_of_a_layer_on_sm_90(tmp_path, monkeypatch):
    def compiled(module, kernels, *_):
        raise Built({launch.symbol for kernel in kernels for launch in kernel.composition.launches})

    monkeypatch.setattr(exporter, "compile_module", compiled)
    layer = ["--layers", "3", "--tensor-parallel", "8", "--rank", "0", "--max-context", "8192", "--pages", "256"]
    with pytest.raises(Built) as built:
        main(["export", "glm-5.1", *layer, "--rows", "64", "--target", "sm_90", "-o", str(tmp_path / "artifact")])
    (symbols,) = built.value.args
    assert len(symbols) > 12 and symbols <= OPS.keys() and "q_absorb_rope_cat" in symbols
