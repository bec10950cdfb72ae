"""How the kernels of the routed experts divide rows among workgroups."""

THREADS = 256
MOST_ROWS = 64
MOST_PAIRS = 640
"""(row, expert) pairs that fit in the memory of a workgroup."""


def row_block(experts_per_row: int) -> int | None:
    """Rows whose pairs a workgroup gathers: 64, or 32 of more experts; None where even those do not fit."""
    return next((rows for rows in (MOST_ROWS, MOST_ROWS // 2) if rows * experts_per_row <= MOST_PAIRS), None)
