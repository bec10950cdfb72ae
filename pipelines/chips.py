"""The accelerators that artifacts are made for, as their vendors describe them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Chip:
    """``memory_bandwidth`` in bytes per second; ``compute_units`` is AMD's word, NVIDIA says multiprocessors."""

    name: str
    memory_bandwidth: float
    compute_units: int


# Sources: AMD Instinct MI300X and MI355X data sheets, NVIDIA H200 data sheet.
MI300X = Chip("MI300X", 5.3e12, 304)
MI355X = Chip("MI355X", 8.0e12, 256)
H200 = Chip("H200", 4.8e12, 132)
