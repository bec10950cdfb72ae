"""Byte counts and times in words."""

from collections.abc import Mapping


def format_bytes(count: int) -> str:
    """Such as 1.5 MB; decimal units, as bandwidths are quoted in."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    raise AssertionError


def format_seconds(seconds: float | None) -> str:
    """Such as 12.30 µs; a dash for None."""
    if seconds is None:
        return "–"
    microseconds = seconds * 1e6
    digits = 3 if microseconds < 1 else 2 if microseconds < 100 else 0
    return f"{microseconds:.{digits}f} µs"


def format_ratio(ratio: float | None) -> str:
    """Such as 1.25; nothing for None."""
    if ratio is None:
        return ""
    return "< 0.01" if 0 < ratio < 0.005 else f"{ratio:.2f}"


def format_widths(counts: Mapping[str, int]) -> str:
    """Accesses by bytes of a lane, widest first, such as 12 × 16 B, 3 × 4 B; a dash for none."""
    widest_first = sorted(counts.items(), key=lambda item: -int(item[0]))
    return ", ".join(f"{count} × {size} B" for size, count in widest_first) or "–"
