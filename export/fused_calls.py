"""Op calls of a layer that follow each other, as one dispatch.

The runtime binds at most 16 buffers to a dispatch. So the layer's parameters come as one (see `Span`), and what only
the dispatch's own ops read lies in one scratch buffer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

import iree.compiler.ir as ir

from predecode.custom_kernels.composition import Composition, Part
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.toolchain import CodeObject
from predecode.export.dispatch_mlir import DispatchText, LoadedGlobal, extern_dispatch
from predecode.export.dispatched_calls import DispatchedCalls
from predecode.export.schedule import MOST_PHASES
from predecode.export.tensor_types import builtin_type, meta_tensor
from predecode.export.touched import Touched
from predecode.export.trace import PARAMETER_SCOPE
from predecode.export.traced_call import TracedCall, parameter_of
from predecode.export.weights.spans import Span
from predecode.pipelines.errors import PredecodeError

_STATE = "predecode.grid_state"
_WAITING_WORDS = 2 * MOST_PHASES
_WORD_BYTES = 4
_SCRATCH_ALIGNMENT = 256


@dataclass(frozen=True)
class FusedCalls(DispatchedCalls):
    """Phases that follow each other, in a ``resident`` grid or as a chain (see `Composition`). ``spans``: see `inject`.

    ``function`` is the entry point's name: functions that stored to one global could not pass their transients.
    """

    spans: Mapping[str, Span] = field(default_factory=dict)
    resident: bool = True
    function: str = ""

    @cached_property
    def _state(self) -> LoadedGlobal:
        """Two words for a barrier, or for each phase that another one waits for, then what is posted.

        Zero between dispatches: those of a function that post as much share it.
        """
        words = _WAITING_WORDS + self._posted_words
        return LoadedGlobal(f"{_STATE}.{self.function}.{words}", f"tensor<{words}xi32>", written=True)

    @cached_property
    def operands(self) -> list[ir.Value]:
        """Tensors from outside that are no parameters of a layer."""
        return [value for value in self._outside if self._span(value) is None]

    @cached_property
    def results(self) -> list[ir.Value]:
        """Results that something outside reads, or that are written in place."""
        return [
            result
            for call in self.calls
            for i, result in enumerate(call.operation.results)
            if i in call.op.in_place or any(use.owner.operation not in self._operations for use in result.uses)
        ]

    @cached_property
    def _operations(self) -> list[ir.Operation]:
        return [call.operation for call in self.calls]

    @cached_property
    def _all_results(self) -> list[ir.Value]:
        return _results_of(self.phases)

    @cached_property
    def _outside(self) -> list[ir.Value]:
        unique: list[ir.Value] = []
        for call in self.calls:
            for value in call.operands:
                if value not in unique and value not in self._all_results:
                    self._require_no_way_back(value, call)
                    unique.append(value)
        return unique

    def _require_no_way_back(self, value: ir.Value, call: TracedCall) -> None:
        """Refuse an operand that another operation makes from results of this very dispatch."""
        waiting, seen = [value], set()
        while waiting:
            owner = waiting.pop().owner
            if isinstance(owner, ir.Block) or owner in seen:
                continue
            seen.add(owner)
            for operand in owner.operands:
                if operand in self._all_results:
                    raise PredecodeError(
                        f"{call.op.name} cannot be fused with what comes before it: {owner.name}, which has no kernel "
                        f"for {self.target.name}, stands between them; export without --fuse"
                    )
                waiting.append(operand)

    def _span(self, value: ir.Value) -> Span | None:
        return self.spans.get(parameter_of(value))

    @cached_property
    def _entries(self) -> list[LoadedGlobal]:
        """The archive's entries for the layers whose parameters are read."""
        spans = {span.entry: span for span in map(self._span, self._outside) if span}
        return [LoadedGlobal(name, f"tensor<{span.entry_length}xi8>") for name, span in spans.items()]

    @property
    def _loaded(self) -> tuple[LoadedGlobal, ...]:
        return (*self._entries, self._state)

    @cached_property
    def _addresses(self) -> dict[ir.Value, tuple[int, int]]:
        """Pointer and byte offset of each tensor: operands, loaded globals, own results, scratch."""
        addresses = {value: (i, 0) for i, value in enumerate(self.operands)}
        entry_pointers = {entry.name: len(self.operands) + i for i, entry in enumerate(self._entries)}
        for value in self._outside:
            span = self._span(value)
            if span:
                addresses[value] = entry_pointers[span.entry], span.offset
        own = len(self.operands) + len(self._loaded)
        scratch, end, posted = own + len(self.results) - len(self._in_place), 0, _WAITING_WORDS * _WORD_BYTES
        for call in self.calls:
            for i, result in enumerate(call.operation.results):
                if i in call.op.in_place:
                    addresses[result] = addresses[call.tensor(call.op.in_place[i])]
                elif result in self.results:
                    addresses[result] = own, 0
                    own += 1
                elif result in self._posted:
                    addresses[result] = self._state_pointer, posted
                    posted += meta_tensor(result).nbytes
                else:
                    addresses[result] = scratch, end
                    end += -(-meta_tensor(result).nbytes // _SCRATCH_ALIGNMENT) * _SCRATCH_ALIGNMENT
        return addresses

    @cached_property
    def _in_place(self) -> list[ir.Value]:
        return [call.operation.results[i] for call in self.calls for i in call.op.in_place]

    @cached_property
    def _scratch_bytes(self) -> int:
        inside = [value for value in self._all_results if value not in self.results and value not in self._posted]
        ends = [self._addresses[value][1] + meta_tensor(value).nbytes for value in inside]
        return max(ends, default=0)

    @cached_property
    def tied(self) -> dict[int, int]:
        """Operand that each result written in place reuses."""
        tied = {i: self._addresses[value][0] for i, value in enumerate(self.results) if value in self._in_place}
        if any(pointer >= len(self.operands) for pointer in tied.values()) or len(set(tied.values())) < len(tied):
            raise PredecodeError("a fused layer writes a buffer in place twice; export without --fuse")
        return tied

    @cached_property
    def composition(self) -> Composition:
        """The phases; a resident grid has as many workgroups as the device holds at once."""
        phases = tuple(tuple(self._part(call) for call in phase) for phase in self.phases)
        pointers = len(self.operands) + len(self._loaded) + len(self.results) - len(self.tied) + 1
        resident = self.target.resident_grid if self.resident else 0
        return Composition(phases, pointers, resident, state=self._state_pointer)

    def _part(self, call: TracedCall) -> Part:
        results = call.operation.results
        own = [self._addresses[result] for i, result in enumerate(results) if i not in call.op.in_place]
        addresses = [*(self._addresses[value] for value in call.operands), *own]
        writes = frozenset(self._addresses[result][0] for result in results)
        launch = (call.launch.when_resident if self.resident else None) or call.launch
        pointers, offsets = zip(*addresses, strict=True)
        posts = any(result in self._posted for result in results)
        takes = any(value in self._posted for value in call.operands)
        return Part(launch, pointers, offsets, writes, self._awaited_workgroups(call, launch), posts, takes)

    def _awaited_workgroups(self, call: TracedCall, launch: Launch) -> int:
        """How many of the first workgroups of ``call`` make what calls of later phases wait for."""
        results = call.operation.results
        makers = launch.makers or (launch.workgroup_count,) * len(results)
        awaited = [
            count
            for result, count in zip(results, makers, strict=True)
            if result not in self._posted and any(use.owner.operation in self._operations for use in result.uses)
        ]
        return max(awaited, default=0)

    @cached_property
    def _state_pointer(self) -> int:
        return len(self.operands) + len(self._entries)

    @cached_property
    def _posted(self) -> list[ir.Value]:
        """Results that the only call which reads them takes, instead of waiting for all that their phase makes."""
        if self.resident:
            return []
        return [
            result
            for i, phase in enumerate(self.phases[:-1])
            for call in phase
            if call.launch.posts
            for result in call.operation.results
            if any(self._takes_all(reader, result, i) for reader in self.phases[i + 1])
        ]

    def _takes_all(self, reader: TracedCall, result: ir.Value, phase: int) -> bool:
        """Whether ``reader``, of the phase after ``phase``, takes ``result`` and needs nothing else of this dispatch.

        No later phase may need what is made up to ``phase``: its waiting for the reader's would not include that.
        """
        takes = reader.launch.takes and reader.tensor(reader.launch.takes) == result
        alone = all(use.owner.operation == reader.operation for use in result.uses)
        earlier = _results_of(self.phases[: phase + 1])
        later = [value for call in chain.from_iterable(self.phases[phase + 2 :]) for value in call.operands]
        needs = [value for value in reader.operands if value in self._all_results]
        return bool(takes) and alone and needs == [result] and not any(value in earlier for value in later)

    @property
    def _posted_words(self) -> int:
        return sum(meta_tensor(value).nbytes for value in self._posted) // _WORD_BYTES

    def touched(self) -> dict[int, Touched]:
        """What all calls move of each operand and loaded entry, by binding."""
        of_value: dict[ir.Value, int] = {}
        for call in self.calls:
            for name, value in zip(call.launch.operands, call.operands, strict=True):
                moved = call.touched.get(name, meta_tensor(value).nbytes)
                of_value[value] = max(of_value.get(value, 0), moved)
        of_binding: dict[int, dict[str, int]] = {}
        for value in self._outside:
            pointer, _ = self._addresses[value]
            span = self._span(value)
            name = parameter_of(value).removeprefix(f"{span.entry}.") if span else ""
            of_binding.setdefault(pointer, {})[name] = of_value[value]
        return {
            pointer: Touched(sum(parts.values()), parts if "" not in parts else {})
            for pointer, parts in of_binding.items()
        }

    def text(self, code: CodeObject) -> DispatchText:
        """The MLIR function that the calls become a call of."""
        operands = tuple(builtin_type(value) for value in self.operands)
        results = tuple(builtin_type(value) for value in self.results)
        scratch = f"tensor<{max(self._scratch_bytes, 1)}xi8>"
        return extern_dispatch(self.composition, self.target, code, operands, results, self.tied, self._loaded, scratch)

    def globals(self) -> dict[str, str]:
        """What workgroups wait by, and the archive's entries for whole layers."""
        texts = {
            entry.name: f'util.global private @"{entry.name}" = '
            f'#flow.parameter.named<"{PARAMETER_SCOPE}"::"{entry.name}"> : {entry.type}'
            for entry in self._entries
        }
        state = self._state
        return texts | {state.name: f'util.global private mutable @"{state.name}" = dense<0> : {state.type}'}


def _results_of(phases: Sequence[Sequence[TracedCall]]) -> list[ir.Value]:
    return [result for call in chain.from_iterable(phases) for result in call.operation.results]
