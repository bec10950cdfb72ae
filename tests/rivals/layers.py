"""Whole layers in plain torch: each checked layer by layer against the reference, then timed as a chain."""

import contextlib
import dataclasses
import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from tests.rivals import torch_experts
from tests.rivals.inputs import CachePools, StepInputs, plain_caches
from tests.rivals.libraries import first_line
from tests.rivals.parameters import ArtifactLayers, only_layer
from tests.rivals.reference import reference_layer
from tests.rivals.report import LayerResult, RivalError
from tests.rivals.timing import Graph, time_from_host
from tests.rivals.torch_layer import Experts, TorchLayer
from tests.rivals.torch_weights import LayerWeights, layer_weights, with_bfloat16_experts

MOST_MEDIAN_DEVIATION = 0.1
"""Of a row of the layer's output. Rounding makes 0.05 of it; a row whose near-tied expert flips has up to 0.5."""
MOST_ATTENTION_DEVIATION = 0.35
"""Median over rows, of the attention half's result: rounding makes up to 0.07 of it, and 0.2 where it moves the
choice of tokens; other tokens, or another order of them, give 1."""
_QUIET = 2.0**-10
"""What the stream is scaled by to see the attention half: next to a stream of true size its result is small."""
_HOST_REPEATS = 5
Stream = tuple[torch.Tensor, torch.Tensor]
"""Hidden and residual, bfloat16 [T, hidden]."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to run the torch layer: ``experts`` of `torch_experts`, and ``how``, "host", "graph" or "compile"."""

    experts: Experts
    how: str

    @property
    def bfloat16_experts(self) -> bool:
        """Whether experts are dequantised beforehand."""
        return self.experts is torch_experts.grouped

    @property
    def name(self) -> str:
        """For the table."""
        ways = {
            "host": "torch eager",
            "graph": "torch eager in a CUDA graph",
            "compile": "torch.compile in a CUDA graph",
        }
        return f"{ways[self.how]}, {'bf16 experts grouped' if self.bfloat16_experts else 'fp8 experts gathered'}"


EAGER = tuple(
    Variant(experts, how) for how in ("host", "graph") for experts in (torch_experts.grouped, torch_experts.gathered)
)


def compiled_variants(
    rows: Sequence[int], experts_per_row: int, expected: dict[int, float]
) -> list[tuple[Variant, int]]:
    """Compiled variants with row counts, those first that read the fewest bytes of experts.

    ``expected`` is the number of different experts that a row count uses.
    """
    gathered, grouped = (Variant(e, "compile") for e in (torch_experts.gathered_in_one_pass, torch_experts.grouped))
    likely = {count: count * experts_per_row <= 2 * expected[count] for count in rows}
    first = [(gathered if likely[count] else grouped, count) for count in rows]
    return first + [(grouped if likely[count] else gathered, count) for count in rows]


class TorchLayers:
    """The artifact's layers as torch weights on ``device``, with the references for every row count."""

    def __init__(
        self, artifact: ArtifactLayers, pools: CachePools, rows: Sequence[int], context: str, device: torch.device
    ):
        self.artifact, self.device = artifact, device
        self.steps = {count: pools.step_inputs(count, context, device) for count in rows}
        self.weights: list[LayerWeights] = []
        self._bfloat16: list[LayerWeights] = []
        self._references: dict[int, list[Stream]] = {count: [] for count in rows}
        self._quiet_references: dict[int, list[Stream]] = {count: [] for count in rows}
        for layer in artifact.layers:
            segment = artifact.load(layer, device)
            for count, step in self.steps.items():
                self._references[count].append(reference_layer(segment, step))
                self._quiet_references[count].append(reference_layer(segment, quiet(step)))
            with torch.no_grad():
                self.weights.append(layer_weights(only_layer(segment), segment.rope_table))

    @torch.no_grad()
    def run(self, variant: Variant, rows: int) -> LayerResult:
        """Check and time one variant; whatever goes wrong becomes the result's reason."""
        try:
            return self._run(variant, rows)
        except RivalError as error:
            return LayerResult(variant.name, rows, reason=str(error))
        except Exception as error:
            return LayerResult(variant.name, rows, reason=first_line(error))
        finally:
            free_memory()

    def _run(self, variant: Variant, rows: int) -> LayerResult:
        if variant.how != "host" and self.device.type != "cuda":
            raise RivalError("needs an NVIDIA GPU")
        step, weights = self.steps[rows], self._weights_for(variant)
        layer = TorchLayer(self.artifact.config, variant.experts, self.device)
        function = layer.__call__
        if variant.how == "compile":
            # Else every further variant counts as one more recompilation, of which few are allowed.
            torch.compiler.reset()
            function = torch.compile(function, fullgraph=True, dynamic=False, mode="max-autotune-no-cudagraphs")
        caches = [plain_caches(step) for _ in weights]
        singles = [
            lambda w=w, c=c, x=x: function(w, c, step, x.hidden, x.residual)
            for x in (step, quiet(step))
            for w, c in zip(weights, caches, strict=True)
        ]

        def chain() -> Stream:
            stream = step.hidden, step.residual
            for w, c in zip(weights, caches, strict=True):
                stream = function(w, c, step, *stream)
            return stream

        if variant.how == "host":
            deviation = self._check(rows, [call() for call in singles])
            times = time_from_host([chain], self.device, _HOST_REPEATS)
        else:
            graph = Graph(singles)
            graph.replay_into_poison()
            deviation = self._check(rows, graph.results)
            del graph
            times = Graph([chain]).time()
        return LayerResult(variant.name, rows, tuple(s / len(weights) for s in times.seconds), deviation)

    def _weights_for(self, variant: Variant) -> list[LayerWeights]:
        if not variant.bfloat16_experts:
            return self.weights
        if not self._bfloat16:
            self._bfloat16 = [with_bfloat16_experts(weights) for weights in self.weights]
        return self._bfloat16

    def _check(self, rows: int, results: Sequence[Stream]) -> float:
        count = len(self.weights)
        check_attention(results[count:], self._quiet_references[rows])
        return check_layers(results[:count], self._references[rows])


def free_memory() -> None:
    """Hand back what nothing uses any more; a GPU that a kernel has crashed fails here too, which is told elsewhere."""
    gc.collect()
    with contextlib.suppress(RuntimeError):
        torch.cuda.empty_cache()


def quiet(step: StepInputs) -> StepInputs:
    """The same step with a faint stream, which norms make loud again."""
    return dataclasses.replace(step, hidden=step.hidden * _QUIET, residual=step.residual * _QUIET)


def check_layers(results: Sequence[Stream], references: Sequence[Stream]) -> float:
    """Median deviation of hidden's rows over all layers; raises `RivalError` where it is too large."""
    return _median(results, references, 0, "the layer's result", MOST_MEDIAN_DEVIATION)


def check_attention(results: Sequence[Stream], references: Sequence[Stream]) -> float:
    """As `check_layers` for the residual stream of a `quiet` step, which is the attention half's result."""
    return _median(results, references, 1, "the attention half's result", MOST_ATTENTION_DEVIATION)


def _median(results: Sequence[Stream], references: Sequence[Stream], part: int, what: str, limit: float) -> float:
    pairs = zip(results, references, strict=True)
    deviations = torch.cat([row_deviations(given[part], wanted[part]) for given, wanted in pairs])
    median = deviations.median().item()
    if not deviations.isfinite().all() or not median <= limit:
        raise RivalError(f"wrong: half of the rows of {what} deviate by {median:.2g} or more, allowed {limit}")
    return median


def row_deviations(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Distance of each row of ``given`` to that of ``wanted``, relative to the latter."""
    wanted = wanted.float()
    return (given.float() - wanted).norm(dim=-1) / wanted.norm(dim=-1)


def run_until(deadline: float, layers: TorchLayers, wanted: Sequence[tuple[Variant, int]]) -> Iterator[LayerResult]:
    """Results of all ``wanted``; those that would begin after ``deadline`` (`time.monotonic`) say so."""
    for variant, rows in wanted:
        if time.monotonic() > deadline:
            yield LayerResult(variant.name, rows, reason="not run: the time was used up")
        else:
            yield layers.run(variant, rows)
