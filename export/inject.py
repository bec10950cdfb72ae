"""Replaces the op calls that have kernels by dispatches, in the traced module."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import iree.compiler.ir as ir

from predecode.custom_kernels.code_object import Kernel
from predecode.custom_kernels.composition import Composition
from predecode.custom_kernels.launch_check import RegistersSpilled, check_launch
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.toolchain import CodeObject, Toolchain
from predecode.export.dispatch_mlir import DispatchText, signed
from predecode.export.dispatched_calls import DispatchedCalls
from predecode.export.fuse_prologues import fuse_prologues
from predecode.export.fused_calls import FusedCalls
from predecode.export.schedule import Fusion, Schedule, ScheduledCall, chained, dispatches, fused
from predecode.export.stream_ir import symbol_of
from predecode.export.touched import Touched
from predecode.export.traced_call import TracedCall, is_op_call
from predecode.export.weights.spans import Span


@dataclass(frozen=True, slots=True)
class InjectedKernel:
    """A kernel that a module embeds: how it is launched, its code, and what the code says of itself."""

    composition: Composition
    code: CodeObject
    kernel: Kernel | None
    """None for CPU objects, whose symbol is checked by the linker."""


DispatchKey = tuple[str, tuple[int, ...], tuple[int, ...]]
"""How the compiled schedule shows a dispatch: function (of a GPU, the code object's file), constants, workgroups."""


@dataclass(frozen=True, slots=True)
class Injection:
    """What was put into a module. ``touched`` gives, for dispatches that move only a part of some bindings, that part
    by binding index."""

    kernels: tuple[InjectedKernel, ...]
    touched: Mapping[DispatchKey, Mapping[int, Touched]]


def inject(
    module: ir.Operation,
    target: Target,
    toolchain: Toolchain,
    schedule: Schedule = Schedule.SERIAL,
    fusion: Fusion = Fusion.NONE,
    spans: Mapping[str, Span] = MappingProxyType({}),
) -> Injection:
    """Replace every ``torch.predecode.*`` operator of ``module``, in place.

    Calls of one function that ``schedule`` and ``fusion`` put together become one dispatch where the target's
    kernels can be composed (see `Composition`). A level that makes the kernel of a chain spill registers stands alone,
    and so does each call of a level whose kernel does.
    ``spans`` tell where a layer's parameters lie in the archive's entry for the whole layer, which fused calls bind
    instead of each.
    """
    built: dict[Composition, InjectedKernel | None] = {}
    touched: dict[DispatchKey, Mapping[int, Touched]] = {}
    functions: dict[DispatchText, str] = {}
    blobs: dict[str, str] = {}
    with module.context, ir.Location.unknown():
        for block in _blocks_of_operators(module):
            if fusion is Fusion.CHAIN:
                fuse_prologues(block, target)
            waiting = _dispatched_together(block, target, schedule, fusion)
            while waiting:
                phases = waiting.pop(0)
                is_fused = len(phases) > 1
                resident = fusion is Fusion.LAYER
                dispatch = (
                    FusedCalls(phases, target, spans, resident, symbol_of(block.owner))
                    if is_fused
                    else DispatchedCalls(phases, target)
                )
                composition = dispatch.composition
                if composition not in built:
                    built[composition] = _build(composition, target, toolchain)
                kernel = built[composition]
                if kernel is None:
                    apart = [phases[:-1], phases[-1:]] if is_fused else [((call,),) for call in phases[0]]
                    waiting[:0] = apart
                    continue
                text = dispatch.text(kernel.code)
                name = functions.setdefault(text, f"predecode.{composition.symbol}.{len(functions)}")
                touched_bytes = dispatch.touched()
                dispatch.replace(name)
                function = kernel.code.path.name if target.has_hip_kernels else name
                constants = tuple(signed(c) for c in composition.constants) if target.has_hip_kernels else ()
                touched[function, constants, composition.workgroups] = touched_bytes
                blobs |= dispatch.globals()
        _append(module, functions, blobs)
    # Dispatches that differ in constants or grid alone share their code.
    kernels = {(kernel.composition.symbol, kernel.code.sha256): kernel for kernel in built.values() if kernel}
    return Injection(tuple(kernels[key] for key in sorted(kernels)), touched)


def _build(composition: Composition, target: Target, toolchain: Toolchain) -> InjectedKernel | None:
    """None of several parts whose kernel spills registers."""
    code = toolchain.build(composition, target)
    try:
        kernel = check_launch(code, composition, target) if target.has_hip_kernels else None
    except RegistersSpilled:
        if len(composition.parts) == 1:
            raise
        return None
    return InjectedKernel(composition, code, kernel)


def _dispatched_together(
    block: ir.Block, target: Target, schedule: Schedule, fusion: Fusion
) -> list[tuple[tuple["TracedCall", ...], ...]]:
    """The calls of ``block`` by dispatch and phase. The block's operations are sorted so that each dispatch can
    stand where its last call does."""
    calls, scheduled, of_operation, sources = [], [], {}, {}
    for operation in block.operations:
        used = frozenset().union(*(sources.get(v.owner, frozenset()) for v in operation.operands))
        if is_op_call(operation.operation):
            call = TracedCall.read(operation.operation, target)
            direct = {of_operation[v.owner] for v in operation.operands if v.owner in of_operation}
            # A call without weights belongs to the layer of what it reads, if nothing else stands between.
            layers = [scheduled[source].layer for source in direct] if direct == used else []
            layer = max((layer for layer in [call.layer, *layers] if layer is not None), default=None)
            of_operation[operation.operation] = len(calls)
            calls.append(call)
            launch = call.launch
            early = [sources.get(call.tensor(name).owner, frozenset()) for name in launch.reads_early]
            reads_early = frozenset().union(*early) if early and target.starts_in_order else None
            shape, workgroups, cluster = launch.workgroup_size, launch.workgroup_count, launch.cluster
            reduced = call.op.reads_reduced
            scheduled.append(ScheduledCall(used, shape, layer, workgroups, cluster, reduced, reads_early))
            used = frozenset([len(calls) - 1])
        sources[operation.operation] = used
    if not target.has_hip_kernels:
        return [((call,),) for call in calls]
    match fusion:
        case Fusion.NONE:
            groups = [(group,) for group in dispatches(scheduled, schedule)]
        case Fusion.CHAIN:
            groups = chained(scheduled, target.resident_grid if target.starts_in_order else 0)
        case Fusion.LAYER:
            groups = fused(scheduled)
    place = {}
    for at, phases in enumerate(groups):
        for phase, group in enumerate(phases):
            place |= dict.fromkeys(group, (at, phase))
    _sort(block, lambda operation: _order(operation, of_operation, sources, place))
    return [tuple(tuple(calls[i] for i in phase) for phase in phases) for phases in groups]


def _order(operation, of_operation, sources, place) -> tuple[int, bool, int]:
    """A dispatch's calls by phase, then what reads any of them."""
    if operation in of_operation:
        at, phase = place[of_operation[operation]]
        return at, False, phase
    return max((place[i][0] for i in sources[operation]), default=-1), True, 0


def _sort(block: ir.Block, order) -> None:
    *operations, terminator = (operation.operation for operation in block.operations)
    for operation in sorted(operations, key=order):
        operation.move_before(terminator)


def _blocks_of_operators(root: ir.Operation) -> list[ir.Block]:
    """Blocks that hold calls of ours, each once: the bodies of the entry points."""
    blocks = []

    def visit(operation: ir.Operation) -> ir.WalkResult:
        if is_op_call(operation) and operation.block not in blocks:
            blocks.append(operation.block)
        return ir.WalkResult.ADVANCE

    root.walk(visit)
    return blocks


def _append(module: ir.Operation, functions: Mapping[DispatchText, str], new_globals: Mapping[str, str]) -> None:
    """Parse the dispatch functions and the globals that they load, and move them into ``module``."""
    texts = [dispatch.module_text(name) for dispatch, name in functions.items()]
    library = ir.Module.parse("\n".join([*(new_globals[name] for name in sorted(new_globals)), *texts]))
    body = module.regions[0].blocks[0]
    first = body.operations[0]
    for operation in list(library.body.operations):
        detached = operation.operation.detach_from_parent()
        body.append(detached)
        if detached.name == "util.global":  # the compiler wants globals before the functions that store to them
            detached.move_before(first)
