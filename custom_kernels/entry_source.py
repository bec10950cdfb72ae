"""The HIP source of an entry: each part's body in a namespace of its own, and a kernel that calls them."""

import math
import re

from predecode.custom_kernels.composition import Composition, Part

_INCLUDE = re.compile(r'^#include "([^"]+)"$', re.MULTILINE)


def entry_source(composition: Composition) -> str:
    """Source text of ``composition``'s kernel; the folders of its parts' sources are on the include path."""
    parts = composition.parts
    headers = dict.fromkeys(h for part in parts for h in _INCLUDE.findall(part.launch.source_path.read_text()))
    lines = [f'#include "{header}"' for header in ("entry.h", *headers)]
    for index, part in enumerate(parts):
        lines += _namespace(index, part)
    parameters = [f"void *__restrict__ p{i}" for i in range(composition.pointers)]
    parameters += [f"int c{i}" for i in range(len(composition.constants))]
    threads = math.prod(composition.workgroup_size)
    shared = ", ".join(f"shared_bytes({_body(i, part)})" for i, part in enumerate(parts))
    lines += [
        f"constexpr int SHARED_BYTES = largest({shared});",
        f"KERNEL({threads}) void {composition.symbol}({', '.join(parameters)}) {{",
        "  SHARED uint32x4 memory[divide_up(SHARED_BYTES, 16) + !SHARED_BYTES];",
        *_calls(parts),
        "}",
        "",
    ]
    return "\n".join(lines)


def _body(index: int, part: Part) -> str:
    return f"part{index}::{part.launch.symbol}"


def _namespace(index: int, part: Part) -> list[str]:
    # The headers are included before, at file scope; their include guards make the part's own lines empty.
    constants = [f"constexpr int {name} = {value};" for name, value in part.launch.defines]
    return [f"namespace part{index} {{", *constants, f'#include "{part.launch.source}"', "}"]


def _calls(parts: tuple[Part, ...]) -> list[str]:
    """One call per part, by workgroup index where there are several."""
    lines, first_constant, first_workgroup = [], 0, 0
    for index, part in enumerate(parts):
        launch = part.launch
        x, y, z = launch.workgroups
        workgroup = "{workgroup_x(), workgroup_y(), workgroup_z()}"
        if len(parts) > 1:
            workgroup = f"(workgroup_of(workgroup_x() - {first_workgroup}, {x}, {y}))"
        arguments = [f"Buffer{{p{i}}}" for i in part.pointers]
        arguments += [f"c{first_constant + i}" for i in range(len(launch.constants))]
        call = f"call_body({', '.join([_body(index, part), 'memory', 'Workgroup' + workgroup, *arguments])});"
        first_workgroup += x * y * z
        condition = "" if index == len(parts) - 1 else f"if (workgroup_x() < {first_workgroup}) "
        lines.append(f"  {condition}{'return ' if condition else ''}{call}")
        first_constant += len(launch.constants)
    return lines
