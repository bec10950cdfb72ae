"""All prologue fusions (see prologue.py); to import this module defines them."""

import predecode.custom_kernels.add_normed_gemm_fp8_blockscale
import predecode.custom_kernels.add_normed_linear_bf16
import predecode.custom_kernels.indexer_q_prepare_and_logits
import predecode.custom_kernels.normed_gemm_fp8_blockscale
import predecode.custom_kernels.normed_linear_bf16  # noqa: F401
from predecode.custom_kernels.prologue import PROLOGUES


def consumer_of(name: str) -> str:
    """The op that op ``name`` is with a prologue; ``name`` itself where it has none."""
    return next((prologue.consumer for prologue in PROLOGUES if prologue.fused.name == name), name)
