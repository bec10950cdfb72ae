"""All single ops by the kernels that are at hand."""

import time
from collections.abc import Callable, Iterator, Sequence

from predecode.export.config import ModelConfig
from predecode.export.shard import shard_sizes
from tests.rivals.attention_cases import attention_case
from tests.rivals.gemm_cases import dense_cases, expert_cases
from tests.rivals.indexer_cases import logits_case, topk_case
from tests.rivals.inputs import plain_caches
from tests.rivals.kernel_case import KernelCase, measure
from tests.rivals.layers import TorchLayers, free_memory
from tests.rivals.libraries import COMMON_LIBRARY, FLASH_MLA_LIBRARY, Libraries, first_line
from tests.rivals.report import KernelResult, RivalError, RivalsReport

Cases = Callable[[], Iterator[KernelCase]]


def run_kernels(
    libraries: Libraries, layers: TorchLayers, report: RivalsReport, deadline: float
) -> Iterator[KernelResult]:
    """Results for every row count; a library that is missing is noted once in ``report.skipped``.

    After ``deadline`` (`time.monotonic`) nothing new is begun.
    """
    for family, makers in _families(libraries, layers).items():
        try:
            for rows, make in makers:
                for case in make():
                    if time.monotonic() > deadline:
                        raise RivalError(f"not finished at {case.op}, {rows} rows: the time was used up")
                    yield measure(case, report.run_of(rows))
                    free_memory()
        except RivalError as error:
            report.skipped[family] = str(error)
        except Exception as error:
            report.skipped[family] = first_line(error)


def _families(libraries: Libraries, layers: TorchLayers) -> dict[str, Sequence[tuple[int, Cases]]]:
    config: ModelConfig = layers.artifact.config
    heads, topk = config.index_n_heads, config.index_topk
    attention_heads = shard_sizes(config, layers.artifact.shard).heads

    def dense(rows: int) -> Iterator[KernelCase]:
        yield from dense_cases(libraries.deep_gemm(), layers.weights, rows)

    def experts(rows: int) -> Iterator[KernelCase]:
        chosen, shared = config.num_experts_per_tok, config.n_shared_experts
        yield from expert_cases(libraries.deep_gemm(), layers.weights, rows, chosen, shared)

    def logits(rows: int) -> Iterator[KernelCase]:
        step = layers.steps[rows]
        yield logits_case(libraries.deep_gemm(), plain_caches(step), step, heads)

    def chosen_tokens(rows: int) -> Iterator[KernelCase]:
        libraries.load_ops(COMMON_LIBRARY)
        step = layers.steps[rows]
        yield topk_case(plain_caches(step), step, heads, topk)

    def attention(rows: int) -> Iterator[KernelCase]:
        libraries.load_ops(FLASH_MLA_LIBRARY)
        step, latent = layers.steps[rows], config.kv_lora_rank
        yield attention_case(plain_caches(step), step, attention_heads, latent, topk, config.softmax_scale)

    families = {
        "DeepGEMM, dense": dense,
        "DeepGEMM, scores": logits,
        "SGLang, top-k": chosen_tokens,
        "FlashMLA": attention,
        "DeepGEMM, experts": experts,
    }
    return {
        name: [(rows, lambda rows=rows, make=make: make(rows)) for rows in layers.steps]
        for name, make in families.items()
    }
