"""Bytes that a dispatch moves for one batch: the audit's, which are the most it can move, less what this one spares.

Caches are read as far as the rows' lengths reach. How many different experts the rows are routed to is known on
the device only; the number expected of even routing stands for it.
"""

import re
from dataclasses import dataclass

from predecode.pipelines.bench.batch import Batch
from predecode.pipelines.manifest import Binding, Dispatch, Manifest

_EXPERTS = re.compile(r"experts\.(?:gate_up|down)\.(?:values|scales)$")
_LOGITS_BYTES = 4
_COMPOSED = "+"
_SCORING = ("paged_mqa_logits", "indexer_q_prepare_and_logits")


@dataclass(frozen=True, slots=True)
class Moved:
    """Bytes read and written; ``expected`` where the number of different experts is not known but expected."""

    read: int
    written: int
    expected: bool

    @property
    def total(self) -> int:
        """All bytes."""
        return self.read + self.written


def bytes_moved(manifest: Manifest, batch: Batch, dispatch: Dispatch) -> Moved:
    """Bytes that ``dispatch`` moves in a step of ``batch``."""
    moved = {True: 0, False: 0}
    expected = False
    for binding in dispatch.bindings:
        moved[binding.access == "read"] += _binding_bytes(manifest, batch, dispatch, binding)
        expected |= any(_EXPERTS.search(name) for name in (binding.name, *binding.parts))
    if not dispatch.bindings:
        return Moved(dispatch.bytes_read, dispatch.bytes_written, False)
    return Moved(moved[True], moved[False], expected)


def expected_experts(manifest: Manifest, rows: int) -> float | None:
    """Different experts of a layer that ``rows`` rows use when all routed ones are equally likely, shared included.

    None for a model without routed experts.
    """
    config = manifest.model.config
    experts, chosen = config.get("n_routed_experts"), config.get("num_experts_per_tok")
    if not experts or not chosen:
        return None
    return experts * (1 - (1 - chosen / experts) ** rows) + (config.get("n_shared_experts") or 0)


def _binding_bytes(manifest: Manifest, batch: Batch, dispatch: Dispatch, binding: Binding) -> int:
    if _EXPERTS.search(binding.name):
        return _expert_bytes(manifest, batch.rows, binding.bytes)
    if binding.parts:
        experts = sum(count for name, count in binding.parts.items() if _EXPERTS.search(name))
        return binding.bytes - experts + _expert_bytes(manifest, batch.rows, experts)
    if binding.access == "read" and binding.name.endswith(("indexer_cache", "latent_cache")):
        return min(binding.bytes, _cache_bytes(manifest, batch, binding.name))
    if _holds_logits(dispatch, binding):
        return min(binding.bytes, sum(_scored(manifest, batch)) * _LOGITS_BYTES)
    return binding.bytes


def _expert_bytes(manifest: Manifest, rows: int, audited: int) -> int:
    """The audit counts an expert per pair of row and choice, up to all there are, and the shared ones once."""
    config = manifest.model.config
    shared = config.get("n_shared_experts") or 0
    counted = min(rows * config["num_experts_per_tok"], config["n_routed_experts"]) + shared
    return round(audited / counted * min(counted, expected_experts(manifest, rows)))


def _cache_bytes(manifest: Manifest, batch: Batch, name: str) -> int:
    spec = next(s for entry in manifest.segments(batch.rows) for s in entry.arguments if s.name == name)
    page_bytes, page_tokens = spec.shape[1], manifest.geometry.page_tokens
    if name.endswith("indexer_cache"):
        return sum(-(-length // page_tokens) for length in _scored(manifest, batch)) * page_bytes
    topk = manifest.model.config.get("index_topk", max(batch.lengths))
    return sum(min(length, topk) for length in batch.lengths) * page_bytes // page_tokens


def _scored(manifest: Manifest, batch: Batch) -> list[int]:
    """Lengths of the rows whose tokens are scored: those of more than are selected."""
    topk = manifest.model.config.get("index_topk", 0)
    return [length for length in batch.lengths if length > topk]


def _holds_logits(dispatch: Dispatch, binding: Binding) -> bool:
    """Whether it is the scores of all positions, of which only those below the lengths are touched."""
    if _COMPOSED in dispatch.name:
        return False
    if dispatch.name in _SCORING:
        return binding.access == "write"
    return dispatch.name == "topk_slots" and binding.access == "read" and binding is dispatch.bindings[0]
