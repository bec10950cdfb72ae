"""Runs the kernels' cases on a device that no test machine has: those for which the target has a kernel, and one of
each op that addresses a cache in a pool beyond 4 GiB.

    python -m tests.custom_kernels.device_check build --target sm_90 FOLDER     # where the compiler is
    python -m tests.custom_kernels.device_check run --device cuda FOLDER        # where the device is

The second needs torch and iree-base-runtime only. It prints a line per case and exits 1 if any failed.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import iree.runtime as rt
import torch

from predecode.custom_kernels.op import Call, Op
from predecode.custom_kernels.targets import TARGETS, Target
from predecode.pipelines.emulation import open_device
from tests.custom_kernels.cases.case import Case
from tests.custom_kernels.compiled_cases import compile_cases, every_op_name, load, run_cases
from tests.custom_kernels.large_pools import CASES as LARGE_POOL_CASES
from tests.custom_kernels.large_pools import LargePool

_POOL = ".pool.vmfb"


def cases_with_kernel(name: str, target: Target) -> tuple[Op, list[Case]]:
    """The op called ``name`` and its cases that run as a kernel on ``target``."""
    op, cases = load(name, target.element_format)
    return op, [case for case in cases if op.launch_on(target, described(op, case))]


def described(op: Op, case: Case) -> Call:
    """The call that ``case`` makes, without its data."""
    given = [a.to("meta") if isinstance(a, torch.Tensor) else a for a in case.arguments]
    results = op.fake(*given)
    names = [argument.name for argument in op.overload._schema.arguments]
    return Call(dict(zip(names, given, strict=True)), results if isinstance(results, tuple) else (results,))


def build(folder: Path, target_name: str, names: Sequence[str]) -> None:
    """Compile every op's cases into ``FOLDER/<op>.<target>.vmfb``, and that in a large pool into ``.pool.vmfb``."""
    target = TARGETS[target_name]
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or sorted(every_op_name()):
        op, cases = cases_with_kernel(name, target)
        start = time.monotonic()
        vmfb = compile_cases(op, cases, target)
        (folder / f"{name}.{target.name}.vmfb").write_bytes(vmfb)
        print(f"{name}: {len(cases)} cases, {len(vmfb)} bytes, {time.monotonic() - start:.1f} s", flush=True)
        if name in LARGE_POOL_CASES:
            pool = compile_cases(op, [LargePool(name, target).case], target)
            (folder / f"{name}.{target.name}{_POOL}").write_bytes(pool)


def run(folder: Path, device_uri: str) -> int:
    """Run every module of ``folder``; the number of failed cases."""
    failed = passed = 0
    for path in sorted(folder.glob("*.vmfb")):
        name, target_name = path.name.split(".")[:2]
        target = TARGETS[target_name]
        op, cases = cases_with_kernel(name, target)
        emulated = device_uri == "emulated"
        device = open_device(target.arch, strict=True) if emulated else rt.get_device(device_uri)
        if path.name.endswith(_POOL):
            large = LargePool(name, target)
            fault = large.first_mismatch(path.read_bytes(), device, reads_host=emulated)
            results = [(f"pool of {large.pool.nbytes / 2**30:.1f} GiB", fault)]
        else:
            results = ((case.label, fault) for case, fault in run_cases(op, cases, path.read_bytes(), device))
        for label, fault in results:
            print(f"{'FAIL' if fault else 'ok  '} {name} / {label}{': ' + fault if fault else ''}", flush=True)
            failed, passed = failed + bool(fault), passed + (not fault)
    print(f"{passed} passed, {failed} failed")
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=("build", "run"))
    parser.add_argument("--target", default="sm_90")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("folder", type=Path)
    parser.add_argument("ops", nargs="*", help="all that have cases, unless named")
    options = parser.parse_args()
    if options.verb == "build":
        build(options.folder, options.target, options.ops)
    else:
        sys.exit(1 if run(options.folder, options.device) else 0)


if __name__ == "__main__":
    main()
