"""The ranks of a tensor-parallel model, each in a process of its own, which add up partial sums among themselves.

    python -m tests.connected_ranks check DIR DIR ... --against DIR DIR ... --devices cuda://0,cuda://1
    python -m tests.connected_ranks time DIR DIR ... --devices cuda://0,cuda://1 [--rows 4,16] [--context 8192]
    python -m tests.connected_ranks alone DIR --devices cuda

Folders are artifacts of the ranks in order. ``check`` steps those with ``--reduce peers`` and those of ``--against``
with ``--reduce external``, whose partial sums are added on the host, and compares every bit of the results. ``time``
tells what a layer takes; the partial sums of ``external`` are added by torch's NCCL. Ranks may share a device, but take
turns on it then. ``alone`` times one rank: with ``peers`` it sends to itself, with ``external`` the host waits for each
partial sum, and nobody adds it up.
"""

import argparse
import multiprocessing
import statistics
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from predecode.pipelines import DecodeSession
from predecode.pipelines.bench.batch import make_batch
from predecode.pipelines.bench.measuring import fill_caches
from predecode.pipelines.bench.stepping import REPEATS, Pace, Stepper
from predecode.pipelines.made_up_steps import MadeUpSteps
from predecode.pipelines.mailboxes import AllGather
from predecode.pipelines.running import keep_partial
from predecode.pipelines.session import Reduce
from predecode.pipelines.step_results import to_host

_ROOT = Path(__file__).parent.parent
STEPS = 4
TIMED_STEPS = 50


def run_ranks(work: Callable[..., Any], arguments: Sequence[tuple]) -> list[Any]:
    """``work(rank, all_gather, *arguments[rank])`` of every rank, in a process each; a rank that fails ends all."""
    context = multiprocessing.get_context("spawn")
    if str(_ROOT) not in sys.path:  # the new processes take it over, and find this package by it
        sys.path.append(str(_ROOT))
    pipes, processes = [], []
    for rank, given in enumerate(arguments):
        ours, theirs = context.Pipe()
        process = context.Process(target=_run_rank, args=(theirs, work, rank, given), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        while True:
            messages = [_message(rank, pipe) for rank, pipe in enumerate(pipes)]
            if all(kind == "result" for kind, _ in messages):
                return [value for _, value in messages]
            for pipe in pipes:
                pipe.send([value for _, value in messages])
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _message(rank: int, pipe) -> tuple[str, Any]:
    try:
        kind, value = pipe.recv()
    except EOFError:
        raise RuntimeError(f"rank {rank} ended without a result") from None
    if kind == "error":
        raise RuntimeError(f"rank {rank}: {value}")
    return kind, value


def _run_rank(pipe, work: Callable[..., Any], rank: int, arguments: tuple) -> None:
    def all_gather(data: bytes) -> list[bytes]:
        pipe.send(("gather", data))
        return pipe.recv()

    try:
        pipe.send(("result", work(rank, all_gather, *arguments)))
    except Exception:
        pipe.send(("error", traceback.format_exc()))
        raise


def decode(rank: int, all_gather: AllGather, folder: Path, device: str, rows: int) -> list[dict[str, np.ndarray]]:
    """Results of `STEPS` steps of ``rows`` rows; partial sums that the caller must add are added on the host."""
    session = DecodeSession.open(folder, device)
    if session.manifest.model.reduce == "peers":
        session.connect(all_gather)

    def reduce(partial):
        gathered = all_gather(to_host(partial).tobytes())
        parts = [np.frombuffer(part, ml_dtypes.bfloat16).astype(np.float32) for part in gathered]
        return sum(parts[1:], parts[0]).astype(ml_dtypes.bfloat16).reshape(partial.shape)

    made_up = MadeUpSteps(session.manifest, rows)
    return [session.step(reduce=reduce, **made_up.next_arguments()) for _ in range(STEPS)]


def time_layer(
    rank: int, all_gather: AllGather, folder: Path, device: str, batches: Sequence[tuple[int, str]], alone: bool
) -> list[float]:
    """Median seconds of a layer for each of ``batches``, rows and context, with all ranks at work, or one ``alone``."""
    session = DecodeSession.open(folder, device, hashes=False)
    manifest = session.manifest
    external = manifest.model.reduce == "external"
    reduce = keep_partial
    if external:
        reduce = _waiting(session) if alone else _nccl(rank, manifest.model.tensor_parallel, session)
    elif alone:
        session.loop_back()
    else:
        session.connect(all_gather)
    fill_caches(session)
    medians = []
    for rows, context in batches:
        stepper = Stepper(session, make_batch(manifest.geometry, rows, context), reduce)
        all_gather(b"")
        times = stepper.time(Pace(TIMED_STEPS, 1.0))
        medians.append(statistics.median(times.seconds) / len(manifest.model.layers))
    return medians


def _waiting(session: DecodeSession) -> Reduce:
    """Stands for a collective, which is handed a partial sum that is complete."""

    def reduce(partial):
        session.wait()
        return partial

    return reduce


def _nccl(rank: int, ranks: int, session: DecodeSession) -> Reduce:
    """An all-reduce by torch, on the session's own memory."""
    import torch

    torch.cuda.set_device(rank)
    torch.distributed.init_process_group("nccl", init_method="tcp://127.0.0.1:29511", rank=rank, world_size=ranks)

    def reduce(partial):
        session.wait()
        torch.distributed.all_reduce(torch.from_dlpack(session.tensor(partial)))
        torch.cuda.synchronize()
        return partial

    return reduce


def differences(ours: Sequence[Sequence[dict]], theirs: Sequence[Sequence[dict]]) -> list[str]:
    """The results, by rank, step and name, whose bytes are not the same."""
    return [
        f"rank {rank}, step {step}: {name}"
        for rank, (our_steps, their_steps) in enumerate(zip(ours, theirs, strict=True))
        for step, (our_results, their_results) in enumerate(zip(our_steps, their_steps, strict=True))
        for name in our_results
        if our_results[name].tobytes() != their_results[name].tobytes()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("check", "time", "alone"))
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--against", nargs="+", type=Path)
    parser.add_argument("--devices", required=True)
    parser.add_argument("--rows", default="4,16,64")
    parser.add_argument("--context", default="8192")
    options = parser.parse_args()
    devices, rows = options.devices.split(","), [int(count) for count in options.rows.split(",")]
    if options.action != "check":
        batches, alone = [(count, options.context) for count in rows], options.action == "alone"
        given = [(folder, device, batches, alone) for folder, device in zip(options.folders, devices, strict=True)]
        of_ranks = run_ranks(time_layer, given)
        for count, *seconds in zip(rows, *of_ranks, strict=True):
            each = ", ".join(f"{s * 1e6:.1f}" for s in seconds)
            print(f"{count} rows, context {options.context}: {each} us a layer on each rank, median of {REPEATS}")
        return 0
    failed = False
    for count in rows:
        ours, theirs = (
            run_ranks(decode, [(f, d, count) for f, d in zip(folders, devices, strict=True)])
            for folders in (options.folders, options.against)
        )
        found = differences(ours, theirs)
        failed |= bool(found)
        print(f"{count} rows: " + ("; ".join(found) or f"{STEPS} steps of {len(ours)} ranks, the same bits"))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
