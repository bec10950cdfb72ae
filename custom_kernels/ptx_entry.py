"""What clang cannot say of an NVIDIA entry, written into its PTX: clusters, and workgroup memory that is asked for."""

import re

GIVEN_SHARED_MEMORY = 48 * 1024
"""Bytes of workgroup memory that NVIDIA gives a workgroup without being asked at the launch."""
_DECLARED = re.compile(r"^\s*\.shared (\.align \d+) \.b8 (\w+)\[(\d+)\];\n", re.M)
_REQUESTED = re.compile(r"^\.extern \.shared .*; // (\d+) bytes$", re.M)


def in_clusters(ptx: str, size: int) -> str:
    """The PTX text ``ptx`` of an entry, for clusters of ``size`` workgroups."""
    return re.sub(r"^\.maxntid .*$", rf"\g<0>\n.explicitcluster\n.reqnctapercluster {size}, 1, 1", ptx, flags=re.M)


def requesting_memory(ptx: str) -> str:
    """The PTX text ``ptx`` of an entry whose workgroup memory, if it is more than is given, comes with the launch.

    Such memory is declared without its size, which stands behind it for `requested_memory`.
    """
    declared = _DECLARED.findall(ptx)
    if sum(int(size) for _, _, size in declared) <= GIVEN_SHARED_MEMORY:
        return ptx
    ((alignment, name, size),) = declared  # all of it lies at one address
    text = _DECLARED.sub("", ptx)
    return re.sub(
        r"^(?=\t?\.visible \.entry)|^(?=\t?// \.globl)",
        f".extern .shared {alignment} .b8 {name}[]; // {size} bytes\n",
        text,
        count=1,
        flags=re.M,
    )


def requested_memory(ptx: str) -> int:
    """Bytes of workgroup memory that a launch of the PTX text's entry must ask for."""
    found = _REQUESTED.search(ptx)
    return int(found[1]) if found else 0
