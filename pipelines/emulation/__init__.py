"""An emulated HIP device: the stock hip driver of the IREE runtime runs gfx942 and gfx950 modules on any CPU.

The driver is pointed at a libamdhip64 of ours, which translates each code object's machine code to C,
builds it for this machine and runs it. Opening a device needs the extra ``emulation``; importing this
package does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from predecode.pipelines.errors import PredecodeError

if TYPE_CHECKING:
    from iree.runtime import HalDevice

    from predecode.pipelines.emulation.counters import DispatchCounters

ARCHITECTURES = ("gfx942", "gfx950")

__all__ = ["ARCHITECTURES", "dispatch_counters", "open_device", "pending_fault"]


def open_device(arch: str, strict: bool) -> HalDevice:
    """Opens the emulated device of ``arch`` (``gfx942`` or ``gfx950``) in the runtime's hip driver.

    A strict device checks every access, register and wait of a kernel and poisons fresh memory, at a price
    in speed. All four devices may be open in one process. After a fault the driver gives the opened device
    up, as it would a GPU's context: open it again to go on. Raises PredecodeError for another arch, without
    the extra ``emulation``, and where the hip driver of this process already drives a real GPU.
    """
    if arch not in ARCHITECTURES:
        raise PredecodeError(f"no emulated device for {arch!r}: expected one of {', '.join(ARCHITECTURES)}")
    _require_extra()
    from predecode.pipelines.emulation import driver

    return driver.create_device(arch, strict)


def dispatch_counters() -> list[DispatchCounters]:
    """What the dispatches since the last call did, in the order in which they ran (see DispatchCounters)."""
    from predecode.pipelines.emulation import driver

    return driver.take_dispatch_counters()


def pending_fault() -> PredecodeError | None:
    """The fault behind a failed call of the runtime, as one clear line; None if the emulated device had none.

    Call it when the runtime raises: exceptions cannot pass through the driver. The fault is then forgotten.
    """
    from predecode.pipelines.emulation import driver

    return driver.take_fault()


def _require_extra() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("msgpack", "tinygrad", "ziglang") if find_spec(name) is None]
    if missing:
        raise PredecodeError(
            f"the emulated device needs {', '.join(missing)}: install it with `pip install 'predecode[emulation]'`"
        )
