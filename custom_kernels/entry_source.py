"""The HIP source of an entry: each part's body in a namespace of its own, and a kernel that calls them."""

import math
import re
from collections.abc import Iterable, Iterator

from predecode.custom_kernels.composition import Composition, Part
from predecode.custom_kernels.targets import RESIDENT_PER_UNIT

_INCLUDE = re.compile(r'^#include "([^"]+)"$', re.MULTILINE)


def entry_source(composition: Composition) -> str:
    """Source text of ``composition``'s kernel; the folders of its parts' sources are on the include path."""
    parts = composition.parts
    headers = dict.fromkeys(h for part in parts for h in _INCLUDE.findall(part.launch.source_path.read_text()))
    lines = [f'#include "{header}"' for header in ("entry.h", "grid.h", *headers)]
    bodies: dict[tuple, str] = {}
    for part in parts:
        variant = part.launch.source, part.launch.defines
        if variant not in bodies:
            bodies[variant] = f"part{len(bodies)}"
            lines += _namespace(bodies[variant], part)
    names = [f"{bodies[part.launch.source, part.launch.defines]}::{part.launch.symbol}" for part in parts]
    shared = ", ".join(f"shared_bytes({name})" for name in dict.fromkeys(names))
    lines += [
        f"constexpr int SHARED_BYTES = largest({shared});",
        f"{_attributes(composition)} void {composition.symbol}({', '.join(_parameters(composition))}) {{",
        "  SHARED uint32x4 memory[divide_up(SHARED_BYTES, 16) + !SHARED_BYTES];",
        *_body(composition, iter(names)),
        "}",
        "",
    ]
    return "\n".join(lines)


def _namespace(name: str, part: Part) -> list[str]:
    # The headers are included before, at file scope; their include guards make the part's own lines empty.
    constants = [f"constexpr int {name} = {value};" for name, value in part.launch.defines]
    return [f"namespace {name} {{", *constants, f'#include "{part.launch.source}"', "}"]


def _attributes(composition: Composition) -> str:
    threads = math.prod(composition.workgroup_size)
    asked = max(launch.workgroups_per_unit for launch in composition.launches)
    per_unit = RESIDENT_PER_UNIT if composition.resident else asked
    return f"RESIDENT_KERNEL({threads}, {per_unit})" if per_unit else f"KERNEL({threads})"


def _parameters(composition: Composition) -> Iterator[str]:
    # What one phase writes, a later one may read, whatever the compiler could conclude from its first use.
    shared = composition.resident > 0
    written = frozenset().union(*(part.writes for part in composition.parts)) if shared else frozenset()
    for i in range(composition.pointers):
        yield f"void *p{i}" if i in written or (shared and i == composition.barrier) else f"void *__restrict__ p{i}"
    yield from (f"int c{i}" for i in range(len(composition.constants)))


def _body(composition: Composition, names: Iterator[str]) -> Iterator[str]:
    constants = _constants(composition)
    if len(composition.parts) == 1:
        workgroup = "Workgroup{workgroup_x(), workgroup_y(), workgroup_z()}"
        yield f"  {_call(composition.parts[0], next(names), workgroup, constants)}"
    elif not composition.resident:
        yield "  int index = workgroup_x();"
        yield from _calls(composition.phases[0], names, constants)
    else:
        for i, phase in enumerate(composition.phases):
            if i:
                yield f"  grid_barrier((GridBarrier *)p{composition.barrier}, {composition.resident});"
            tiles = sum(part.workgroups for part in phase)
            yield f"  for (int index = workgroup_x(); index < {tiles}; index += {composition.resident}) {{"
            yield "    barrier();"
            yield from _calls(phase, names, constants)
            yield "  }"


def _constants(composition: Composition) -> Iterator[str]:
    """How the bodies are given their constants: as arguments of the entry, or written out in a resident one."""
    if not composition.resident:
        return (f"c{i}" for i in range(len(composition.constants)))
    return (f"int({constant}u)" for launch in composition.launches for constant in launch.constants)


def _calls(phase: Iterable[Part], names: Iterator[str], constants: Iterator[str]) -> Iterator[str]:
    """The call of the part that ``index`` belongs to."""
    first = 0
    for part in phase:
        x, y, _ = part.launch.workgroups
        call = _call(part, next(names), f"workgroup_of(index - {first}, {x}, {y})", constants)
        yield f"  {'else ' if first else ''}if (index < {first + part.workgroups}) {call}"
        first += part.workgroups


def _call(part: Part, name: str, workgroup: str, constants: Iterator[str]) -> str:
    offsets = part.offsets or (0,) * len(part.pointers)
    arguments = [f"Buffer{{(uint8 *)p{i} + {offset}}}" for i, offset in zip(part.pointers, offsets, strict=True)]
    arguments += [next(constants) for _ in part.launch.constants]
    return f"call_body({', '.join([name, 'memory', workgroup, *arguments])});"
