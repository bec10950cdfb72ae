"""The HIP source of an entry: each part's body in a namespace of its own, and a kernel that calls them."""

import math
import re
from collections.abc import Iterable, Iterator

from predecode.custom_kernels.composition import Composition, Part, in_clusters
from predecode.custom_kernels.targets import RESIDENT_PER_UNIT

NO_EARLIER_PHASE = "EarlierPhase{}"
"""Given to a body whose inputs are there when it starts."""
TAKES_WHAT_IS_POSTED = "EarlierPhase{.posts = true}"
"""Given to a body that waits for none of the workgroups which make its inputs."""
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
    shared_bytes, alignments = (
        ", ".join(f"{asked}({name})" for name in dict.fromkeys(names)) for asked in ("shared_bytes", "shared_alignment")
    )
    lines += [
        f"constexpr int SHARED_BYTES = largest({shared_bytes});",
        f"{_attributes(composition)} void {composition.symbol}({', '.join(_parameters(composition))}) {{",
        f"  alignas(largest({alignments})) SHARED uint32x4 memory[divide_up(SHARED_BYTES, 16) + !SHARED_BYTES];",
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
    shared = len(composition.phases) > 1
    written = frozenset().union(*(part.writes for part in composition.parts)) if shared else frozenset()
    for i in range(composition.pointers):
        yield f"void *p{i}" if i in written or (shared and i == composition.state) else f"void *__restrict__ p{i}"
    yield from (f"int c{i}" for i in range(len(composition.constants)))


def _body(composition: Composition, names: Iterator[str]) -> Iterator[str]:
    constants = _constants(composition)
    if len(composition.parts) == 1:
        workgroup = "Workgroup{workgroup_x(), workgroup_y(), workgroup_z()}"
        yield f"  {_call(composition.parts[0], next(names), workgroup, constants)}"
    elif composition.resident:
        for i, phase in enumerate(composition.phases):
            if i:
                yield f"  grid_barrier((GridBarrier *)p{composition.state}, {composition.resident});"
            tiles = sum(part.workgroups for part in phase)
            yield f"  for (int index = workgroup_x(); index < {tiles}; index += {composition.resident}) {{"
            yield "    barrier();"
            yield from _calls(phase, names, constants)
            yield "  }"
    else:
        yield "  int index = workgroup_x();"
        yield from _chain(composition, names, constants)


def _chain(composition: Composition, names: Iterator[str], constants: Iterator[str]) -> Iterator[str]:
    """Each phase's workgroups behind those of the phase before, of which they wait for the awaited ones."""
    waiting = [sum(part.workgroups for part in phase if not part.takes) for phase in composition.phases]
    arriving = [sum(part.awaited_workgroups for part in phase) for phase in composition.phases]
    first, earlier = 0, NO_EARLIER_PHASE
    for i, phase in enumerate(composition.phases):
        is_last = i == len(waiting) - 1
        end = first + sum(in_clusters(part.workgroups, composition.cluster) for part in phase)
        if not is_last:
            yield f"  if (index < {end}) {{"
        arrivals = "" if is_last else f"(Arrivals *)p{composition.state} + {i}"
        yield from _calls(phase, names, constants, first, earlier, arrivals, composition.cluster)
        if not is_last:
            yield "    return;"
            yield "  }"
            earlier = f"EarlierPhase{{{arrivals}, {arriving[i]}, {waiting[i + 1]}}}"
        first = end


def _constants(composition: Composition) -> Iterator[str]:
    """How the bodies are given their constants: as arguments of the entry, or written out where there are phases."""
    if len(composition.phases) == 1:
        return (f"c{i}" for i in range(len(composition.constants)))
    return (f"int({constant}u)" for launch in composition.launches for constant in launch.constants)


def _calls(
    phase: Iterable[Part],
    names: Iterator[str],
    constants: Iterator[str],
    first: int = 0,
    earlier: str = NO_EARLIER_PHASE,
    arrivals: str = "",
    cluster: int = 1,
) -> Iterator[str]:
    """The call of the part that ``index`` belongs to; the phase's workgroups begin at ``first``.

    Awaited workgroups then arrive at ``arrivals``, if another phase follows.
    """
    otherwise = ""
    for part in phase:
        x, y, _ = part.launch.workgroups
        workgroup = f"workgroup_of(index - {first}, {x}, {y}, {str(part.posts).lower()})"
        awaited = TAKES_WHAT_IS_POSTED if part.takes else earlier
        call = _call(part, next(names), workgroup, constants, awaited)
        end, last_awaited = first + part.workgroups, first + part.awaited_workgroups
        if arrivals and last_awaited > first:
            some = f"if (index < {last_awaited}) " if last_awaited < end else ""
            call = f"{{ {call} {some}arrive({arrivals}); }}"
        yield f"  {otherwise}if (index < {end}) {call}"
        otherwise = "else "
        first += in_clusters(part.workgroups, cluster)
        if first > end:
            yield f"  else if (index < {first}) return;"


def _call(part: Part, name: str, workgroup: str, constants: Iterator[str], earlier: str = NO_EARLIER_PHASE) -> str:
    offsets = part.offsets or (0,) * len(part.pointers)
    arguments = [f"Buffer{{(uint8 *)p{i} + {offset}}}" for i, offset in zip(part.pointers, offsets, strict=True)]
    arguments += [next(constants) for _ in part.launch.constants]
    return f"call_body({', '.join([name, 'memory', workgroup, earlier, *arguments])});"
