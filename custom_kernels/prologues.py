"""All prologue fusions and split products (see prologue.py, split_k.py); to import this module defines them."""

import predecode.custom_kernels.add_normed_gemm_fp8_blockscale
import predecode.custom_kernels.add_normed_linear_bf16
import predecode.custom_kernels.indexer_q_prepare_and_logits
import predecode.custom_kernels.normed_gemm_fp8_blockscale
import predecode.custom_kernels.normed_linear_bf16
import predecode.custom_kernels.router_topk_split_k  # noqa: F401
from predecode.custom_kernels.prologue import PROLOGUES
from predecode.custom_kernels.split_k import SPLIT_PRODUCTS


def consumer_of(name: str) -> str:
    """The op that op ``name`` is with a prologue or split; ``name`` itself where it is neither."""
    consumers = {prologue.fused.name: prologue.consumer for prologue in PROLOGUES}
    for split in SPLIT_PRODUCTS:
        consumers |= {split.partial.name: split.product.consumer, split.reader.name: split.summed}
    return consumers.get(name, name)
