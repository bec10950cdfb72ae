"""What one layer costs elsewhere: a published trace, kernel by kernel.

Source: benchmark notes of the SGLang fork Jacob0226/sglang, branch jacob/glm5-rocm-nsa-on-thomas, commit bc65450645:
GLM-5.1-FP8 on 8 MI355X (tensor parallel 8), 8192 tokens of context, 4 rows, with aiter#2879 and sglang#23562. The
profiler's durations include about 4 µs for even the shortest kernel.
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from predecode.pipelines.manifest import Dispatch, Manifest

CONDITIONS = "SGLang + aiter, GLM-5.1-FP8, MI355X, tensor parallel 8, 8192 tokens, 4 rows"
ROWS = 4
FLOOR_SECONDS = 25.9e-6
"""All bytes of that layer once at 8 TB/s, all-reduces included."""


@dataclass(frozen=True, slots=True)
class TraceKernel:
    """One kernel of the trace. ``places`` are patterns over `places_of` a dispatch that does its work here: the first
    that any dispatch of the layer has counts; none for an all-reduce, which is the caller's here."""

    role: str
    microseconds: float
    places: tuple[str, ...]


_INPUT_NORM = ("input_norm.weight",)
_QUERY_NORM = ("attention.query_norm.weight",)
_KEY_PREPARATION = ("indexer.k_norm.weight",)
_QUERY_PREPARATION = ("indexer_q_prepare*",)
_WK = ("indexer.wk.values",)
_WQ_B = ("indexer.wq_b.values",)
_LATENT_STORE = ("writes latent_cache",)
_SPARSE_MLA = ("sparse_mla*",)
_ABSORPTION = ("absorb_query*", "q_absorb*")
_FLATTEN = ("flatten_group_quant*", "value_up*")
_MLP_NORM = ("post_attention_norm.weight",)
_ROUTER = ("mlp.router.correction_bias",)
_GATE_UP = ("mlp.experts.gate_up.values",)
_DOWN = ("mlp.experts.down.values",)

TRACE = (
    TraceKernel("residual, RMSNorm, quantisation", 4.3, _INPUT_NORM),
    TraceKernel("copy of the scales", 4.4, _INPUT_NORM),
    TraceKernel("GEMM qkv_a", 16.6, ("attention.qkv_a.values",)),
    TraceKernel("norms of q_a and kv_a", 4.4, _QUERY_NORM),
    TraceKernel("copy of the scales", 4.1, _QUERY_NORM),
    TraceKernel("GEMM q_b", 6.4, ("attention.q_b.values",)),
    TraceKernel("second quantisation of q_lora", 4.2, _WQ_B),
    TraceKernel("GEMM wq_b", 6.5, _WQ_B),
    TraceKernel("copy of the scales", 4.0, _WK),
    TraceKernel("GEMM wk", 16.5, _WK),
    TraceKernel("LayerNorm of the key", 4.5, _KEY_PREPARATION),
    TraceKernel("rope of indexer q and k", 8.8, _QUERY_PREPARATION),
    TraceKernel("Hadamard of q", 4.3, _QUERY_PREPARATION),
    TraceKernel("Hadamard of k", 4.3, _KEY_PREPARATION),
    TraceKernel("quantisation of q", 4.6, _QUERY_PREPARATION),
    TraceKernel("quantisation and cache write of k", 4.3, ("writes indexer_cache",)),
    TraceKernel("weights_proj", 5.3, ("indexer.weights_proj.weight",)),
    TraceKernel("gates", 4.4, _QUERY_PREPARATION),
    TraceKernel("paged MQA logits", 4.1, ("paged_mqa_logits*", "indexer_q_prepare_and_logits*")),
    TraceKernel("top-k and page map", 13.2, ("topk_slots*",)),
    TraceKernel("w_kc", 4.7, _ABSORPTION),
    TraceKernel("rope, concat, cache write", 4.3, _LATENT_STORE),
    TraceKernel("concat", 5.3, ("q_absorb*", *_LATENT_STORE)),
    TraceKernel("sparse MLA, partial", 11.0, _SPARSE_MLA),
    TraceKernel("sparse MLA, combine", 8.2, ("value_up_group_quant*", *_SPARSE_MLA)),
    TraceKernel("w_vc", 8.0, ("value_up*",)),
    TraceKernel("flatten, quantisation", 4.2, _FLATTEN),
    TraceKernel("copy of the scales", 4.0, _FLATTEN),
    TraceKernel("GEMM o_proj", 6.8, ("attention.o_proj.values",)),
    TraceKernel("all-reduce", 13.2, ()),
    TraceKernel("residual, RMSNorm", 4.4, _MLP_NORM),
    TraceKernel("router GEMM", 7.1, ("mlp.router.weight",)),
    TraceKernel("top-8", 5.0, _ROUTER),
    TraceKernel("append of the shared expert", 4.4, _ROUTER),
    TraceKernel("sorting", 8.9, _GATE_UP),
    TraceKernel("quantisation", 4.6, _MLP_NORM),
    TraceKernel("fill", 4.5, _GATE_UP),
    TraceKernel("expert GEMM 1", 17.8, _GATE_UP),
    TraceKernel("SiLU and product", 4.3, ("silu_mul_group_quant*", *_GATE_UP)),
    TraceKernel("quantisation", 4.7, ("silu_mul_group_quant*", "group_quant*", *_DOWN)),
    TraceKernel("expert GEMM 2", 9.8, _DOWN),
    TraceKernel("all-reduce", 12.8, ()),
)
SHORTEST_SECONDS = min(kernel.microseconds for kernel in TRACE) * 1e-6
ALL_REDUCES = tuple(kernel for kernel in TRACE if not kernel.places)


def is_comparable(manifest: Manifest, rows: int) -> bool:
    """Whether layers of ``rows`` rows are of the traced model's size and share."""
    config = manifest.model.config
    same_size = config.get("model_type") == "glm_moe_dsa" and config.get("hidden_size") == 6144
    return same_size and manifest.model.tensor_parallel == 8 and rows == ROWS


def places_of(dispatch: Dispatch) -> set[str]:
    """What a dispatch can be found by: its ops, its parameters without their layer, and caches that it writes."""
    places = set(re.split(r"\+|, ", dispatch.name))
    for binding in dispatch.bindings:
        name = binding.name.split(".", 2)[-1] if binding.name.startswith("layers.") else binding.name
        places.add(name if binding.access == "read" else f"writes {name}")
    return places


def work_of(dispatches: tuple[Dispatch, ...]) -> list[tuple[TraceKernel, ...]]:
    """The trace's kernels whose work each dispatch of a layer does."""
    work: list[list[TraceKernel]] = [[] for _ in dispatches]
    places = [places_of(dispatch) for dispatch in dispatches]
    for kernel in TRACE:
        for pattern in kernel.places:
            found = [i for i, names in enumerate(places) if any(fnmatchcase(name, pattern) for name in names)]
            if found:
                work[found[0]].append(kernel)
                break
    return [tuple(kernels) for kernels in work]
