"""How the kernels that work along rows divide a row: eight columns a thread, 256 threads a workgroup."""

THREADS = 256
COLUMNS_PER_WORKGROUP = THREADS * 8


def chunks_of(columns: int) -> int:
    """How many times a workgroup's columns cover a row of ``columns``."""
    return -(-columns // COLUMNS_PER_WORKGROUP)
