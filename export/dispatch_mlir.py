"""The MLIR of one kernel dispatch: a function from tensors to tensors, per backend.

GPU kernels are ``hal.dispatch.extern`` operations (in generic form: this compiler cannot parse its own pretty
one). The CPU backend has no such thing; there a C function is linked into a ``stream.executable``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from predecode.custom_kernels.composition import Composition
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.toolchain import CodeObject

_FUNCTION = "$FUNCTION"
_ITEM_BITS = {"f32": 32, "bf16": 16, "f16": 16, "f8E4M3FN": 8, "f8E4M3FNUZ": 8, "i8": 8, "i32": 32, "i64": 64}


@dataclass(frozen=True, slots=True)
class DispatchText:
    """MLIR of a private function in which ``$FUNCTION`` stands for the name it will get."""

    template: str

    def module_text(self, name: str) -> str:
        """The text with its name filled in."""
        return self.template.replace(_FUNCTION, name)


@dataclass(frozen=True, slots=True)
class LoadedGlobal:
    """A global that a dispatch loads itself; where it is ``written``, in place, what comes out is stored again."""

    name: str
    type: str
    written: bool = False


def extern_dispatch(
    composition: Composition,
    target: Target,
    code: CodeObject,
    operands: tuple[str, ...],
    results: tuple[str, ...],
    tied: Mapping[int, int],
    loaded: tuple[LoadedGlobal, ...] = (),
    scratch: str | None = None,
) -> DispatchText:
    """A GPU kernel. ``operands`` and ``results`` are builtin tensor types; ``tied`` maps result to operand.

    The kernel's pointers are the operands, the ``loaded`` globals, the results that are not tied, and a buffer of type
    ``scratch`` whose content nothing else reads.
    """
    constants = [signed(constant) for constant in composition.constants]
    arguments, returned = operands, results
    returns = ", ".join(f"%result#{i}" for i in range(len(returned)))
    places = {entry: len(arguments) + i for i, entry in enumerate(loaded)}
    operands = (*operands, *(entry.type for entry in loaded))
    loads = "\n  ".join(f'%arg{i} = util.global.load @"{entry.name}" : {entry.type}' for entry, i in places.items())
    results = (*results, *([scratch] if scratch else []))
    stores = []
    for entry in loaded:
        if entry.written:
            tied = {**tied, len(results): places[entry]}
            stores.append(f'util.global.store %result#{len(results)}, @"{entry.name}" : {entry.type}')
            results = (*results, entry.type)
    if len(results) == 1:
        returns = "%result"
    bindings = [
        f"#hal.pipeline.binding<storage_buffer{'' if i in tied.values() else ', ReadOnly'}>"
        for i in range(len(operands))
    ]
    bindings += ["#hal.pipeline.binding<storage_buffer>"] * (len(results) - len(tied))
    tied_operands = [f"{len(constants) + tied[i] if i in tied else -1} : index" for i in range(len(results))]
    counts = ", ".join(f"%count{axis}" for axis in range(3))
    scalars = ", ".join([f"%constant{i}" for i in range(len(constants))] + [f"%arg{i}" for i in range(len(operands))])
    types = ", ".join(["i32"] * len(constants) + list(operands))
    newline = "\n  "
    asked = code.requested_shared_bytes
    requested = f"workgroup_local_memory = {asked} : index,\n      " if asked else ""
    template = f"""
util.func private @"{_FUNCTION}"({_parameters(arguments)}) -> ({", ".join(returned)}) {{
  {_constant_lines("constant", constants, "i32")}
  {loads}
  {_results(results)}"hal.dispatch.extern"({scalars}) <{{
      export_name = "{composition.symbol}",
      layout = #hal.pipeline.layout<constants = {len(constants)}, bindings = [{", ".join(bindings)}]>,
      operandSegmentSizes = array<i32: 0, {len(constants) + len(operands)}, 0, 0>,
      targets = [{target.executable_format}], target_ordinals = [0 : index],
      target_objects = [[#hal.executable.object<{{path = "{code.path.name}"}}>]],
      tied_operands = [{", ".join(tied_operands)}],
      {requested}workgroup_size = [{", ".join(f"{extent} : index" for extent in composition.workgroup_size)}]
    }}> ({{
    ^bb0(%device: !hal.device):
      {_constant_lines("count", composition.workgroups, "index")}
      "hal.return"({counts}) : (index, index, index) -> ()
    }}, {{}}) : ({types}) -> ({", ".join(results)})
  {newline.join(stores)}
  util.return {returns} : {", ".join(returned)}
}}"""
    return DispatchText(template)


def cpu_dispatch(
    composition: Composition,
    target: Target,
    object_file: Path,
    operands: tuple[str, ...],
    results: tuple[str, ...],
    tied: Mapping[int, int],
) -> DispatchText:
    """A C function ``void symbol(char *p0, int64 o0, ..., int64 constants..., int64 x, int64 y, int64 z)``.

    It receives a base pointer and a byte offset per binding, then the launch's constants and the workgroup's
    indices.
    """
    (part,) = composition.parts
    symbol = part.launch.linked_symbol
    bound = [*operands, *(r for i, r in enumerate(results) if i not in tied)]
    declared = ["memref<i8>", "index"] * len(part.pointers) + ["index"] * (len(composition.constants) + 3)
    spans = []
    for i, tensor in enumerate(bound):
        memory = f"memref<{_tensor_bytes(tensor)}xi8>"
        spans.append(f"%span{i} = stream.binding.subspan %binding{i}[%zero] : !stream.binding -> {memory}")
        spans.append(
            f"%base{i}, %offset{i}, %size{i}, %stride{i} = iree_codegen.extract_strided_metadata %span{i} "
            f": {memory} -> memref<i8>, index, index, index"
        )
    passed = [f"%{which}{i}" for i in part.pointers for which in ("base", "offset")]
    passed += [f"%constant{i}" for i in range(len(composition.constants))] + ["%x", "%y", "%z"]
    result_types = ", ".join(f"%arg{tied[i]}" if i in tied else r for i, r in enumerate(results))
    newline = "\n      "
    template = f"""
stream.executable private @"{_FUNCTION}.executable" attributes {{
  hal.executable.objects = #hal.executable.objects<{{
    {target.executable_format} = [#hal.executable.object<{{path = "{object_file.name}"}}>]
  }}>
}} {{
  stream.executable.export public @"{_FUNCTION}" workgroups() -> (index, index, index) {{
    {_constant_lines("count", composition.workgroups, "index")}
    stream.return %count0, %count1, %count2 : index, index, index
  }}
  builtin.module {{
    func.func private @{symbol}({", ".join(declared)})
        attributes {{hal.import.static, llvm.bareptr = true}}
    func.func @"{_FUNCTION}"({", ".join(f"%binding{i}: !stream.binding" for i in range(len(bound)))}) {{
      %zero = arith.constant 0 : index
      {_constant_lines("constant", [signed(c) for c in composition.constants], "index")}
      %x = stream.dispatch.workgroup.id[0] : index
      %y = stream.dispatch.workgroup.id[1] : index
      %z = stream.dispatch.workgroup.id[2] : index
      {newline.join(spans)}
      func.call @{symbol}({", ".join(passed)}) : ({", ".join(declared)}) -> ()
      return
    }}
  }}
}}
util.func private @"{_FUNCTION}"({_parameters(operands)}) -> ({", ".join(results)}) {{
  {_results(results)}flow.dispatch @"{_FUNCTION}.executable"::@"{_FUNCTION}"(
    {", ".join(f"%arg{i}" for i in range(len(operands)))}) : ({", ".join(operands)}) -> ({result_types})
  util.return {_result_names(results)} : {", ".join(results)}
}}"""
    return DispatchText(template)


def _parameters(operands: tuple[str, ...]) -> str:
    return ", ".join(f"%arg{i}: {operand}" for i, operand in enumerate(operands))


def _results(results: tuple[str, ...]) -> str:
    return f"%result:{len(results)} = " if len(results) > 1 else "%result = "


def _result_names(results: tuple[str, ...]) -> str:
    return ", ".join(f"%result#{i}" for i in range(len(results))) if len(results) > 1 else "%result"


def _constant_lines(name: str, values, mlir_type: str) -> str:
    return "\n  ".join(f"%{name}{i} = arith.constant {v} : {mlir_type}" for i, v in enumerate(values))


def signed(constant: int) -> int:
    """The 32-bit pattern of ``constant`` as MLIR writes it."""
    return constant - 2**32 if constant >= 2**31 else constant


def _tensor_bytes(tensor: str) -> int:
    *extents, element = tensor.removeprefix("tensor<").removesuffix(">").split("x")
    count = 1
    for extent in extents:
        count *= int(extent)
    return count * _ITEM_BITS[element] // 8
