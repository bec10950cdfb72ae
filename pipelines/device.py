"""Choosing the device an artifact runs on, and refusing one it was not compiled for."""

import platform
import re
from pathlib import Path

import iree.runtime as rt

from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.manifest import TargetRecord

EMULATED = "emulated"
DRIVERS_OF_TARGET = {
    "cpu": ("local-task", "local-sync"),
    "gfx942": ("hip",),
    "gfx950": ("hip",),
    "sm_90": ("cuda",),
}
_EMULATED_TARGETS = ("gfx942", "gfx950")
# What code compiled for x86-64-v3 uses beyond the baseline.
_CPU_FEATURES = ("avx2", "bmi2", "fma")


class DeviceError(PredecodeError):
    """No such device here, not the one the artifact was compiled for, or it failed."""


def check_target(target: TargetRecord, device: str | None = None) -> str:
    """The device URI to open for ``target``; raises `DeviceError` when ``device`` is of another kind.

    ``device`` is an IREE URI such as "local-task", "hip://0" or "cuda", or "emulated"; None is the target's
    own.
    """
    drivers = DRIVERS_OF_TARGET.get(target.name)
    if drivers is None:
        raise DeviceError(
            f"the artifact was compiled for target {target.name!r}, this predecode runs "
            f"{sorted(DRIVERS_OF_TARGET)}; use the predecode that wrote it"
        )
    uri = device or drivers[0]
    if uri == EMULATED:
        if target.name not in _EMULATED_TARGETS:
            raise DeviceError(
                f"the artifact was compiled for {target.name}, only {' and '.join(_EMULATED_TARGETS)} are "
                f"emulated; run it on {drivers[0]}"
            )
        return uri
    driver = uri.split("://", 1)[0]
    if driver not in drivers:
        raise DeviceError(
            f"the artifact was compiled for {target.name}, which runs on {' or '.join(drivers)}, not on "
            f"{uri!r}; choose --device {drivers[0]} or export with another --target"
        )
    return uri


def open_device(target: TargetRecord, device: str | None = None, *, strict: bool = False) -> rt.HalDevice:
    """Open the device for ``target``; ``strict`` switches an emulated device's memory checks on.

    Raises `DeviceError` naming the chip that the artifact needs and the one that was found.
    """
    uri = check_target(target, device)
    if uri == EMULATED:
        from predecode.pipelines import emulation

        return emulation.open_device(target.arch, strict)
    if target.device.startswith("local"):
        _check_cpu(target)
        return _create(target, uri)
    _check_gpu(target, uri)
    return _create(target, uri)


def numbered(uri: str) -> tuple[str, int]:
    """Driver and device number of ``uri``, such as "cuda" (its first device) or "cuda://1".

    Raises `DeviceError` for a device that other libraries do not know by a number.
    """
    driver, _, path = uri.partition("://")
    known = sorted({driver for drivers in DRIVERS_OF_TARGET.values() for driver in drivers})
    if driver not in known or (path and not path.isdigit()):
        raise DeviceError(
            f"the memory of device {uri!r} cannot be shared with other libraries; open the session on one of "
            f"{', '.join(known)}, by number where there are several (such as cuda://1)"
        )
    return driver, int(path or 0)


def pending_fault(uri: str) -> PredecodeError | None:
    """What an emulated device found wrong in the run that just failed or ended; None on real devices."""
    if uri != EMULATED:
        return None
    from predecode.pipelines import emulation

    return emulation.pending_fault()


def first_line(error: BaseException) -> str:
    """What the runtime says in an error's first line, without its source locations and call chain."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"\S+\.c(pp)?:\d+: ", "", line).split("; while ")[0]


def _create(target: TargetRecord, uri: str) -> rt.HalDevice:
    try:
        return rt.get_device(uri)
    except (RuntimeError, ValueError) as error:
        raise DeviceError(
            f"the artifact needs {target.name}, but device {uri!r} cannot be opened ({first_line(error)}); "
            "run on a machine that has one" + _emulation_hint(target)
        ) from None


def _check_cpu(target: TargetRecord) -> None:
    machine = platform.machine()
    if machine != target.arch:
        raise DeviceError(f"the artifact was compiled for {target.arch}, this machine is {machine}; export it here")
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return
    flags = set(re.search(r"^flags\s*:(.*)$", information.read_text(), re.M)[1].split())
    missing = [name for name in _CPU_FEATURES if name not in flags]
    if missing:
        raise DeviceError(
            f"the artifact was compiled for x86-64-v3, this processor has no {', '.join(missing)}; run it on "
            "another machine"
        )


def _check_gpu(target: TargetRecord, uri: str) -> None:
    driver_name, _, path = uri.partition("://")
    try:
        driver = rt.get_driver(driver_name)
        devices = list(driver.query_available_devices())
    except (RuntimeError, ValueError):
        devices = []
    if not devices:
        raise DeviceError(
            f"the artifact needs {target.name}, but no {driver_name} device or driver library is found on "
            "this "
            "machine; run it on one that has it" + _emulation_hint(target)
        )
    chosen = _find_device(devices, path)
    if chosen is None:
        raise DeviceError(f"{uri!r} is not among the {len(devices)} {driver_name} devices of this machine")
    found = _arch_of(driver.dump_device_info(chosen["device_id"]))
    if found != target.arch:
        raise DeviceError(
            f"the artifact was compiled for {target.arch}, device {uri!r} is "
            f"{found or 'of an unknown kind'}; export with --target {found or '...'} or choose another device"
        )


def _find_device(devices: list[dict], path: str) -> dict | None:
    if not path:
        return devices[0]
    if path.isdigit():
        return devices[int(path)] if int(path) < len(devices) else None
    return next((device for device in devices if device["path"] == path), None)


def _arch_of(information: str) -> str | None:
    """Such as gfx942 or sm_90, out of the driver's text about a device."""
    if match := re.search(r"gpu-arch-name: (\w+)", information):
        return match[1]
    if match := re.search(r"gpu-compute-capability: (\d+)\.(\d+)", information):
        return f"sm_{match[1]}{match[2]}"
    return None


def _emulation_hint(target: TargetRecord) -> str:
    return f", or use --device {EMULATED}" if target.name in _EMULATED_TARGETS else ""
