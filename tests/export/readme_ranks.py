"""The README's rank that is connected to others, run as it stands in a process of its own, on an emulated device."""

from pathlib import Path

import numpy as np
import torch.distributed

from predecode.pipelines import DecodeSession, PagedSequence, PagePool
from predecode.pipelines.artifact import read_manifest
from predecode.pipelines.mailboxes import AllGather


def run_block(rank: int, all_gather: AllGather, block: str, folder: Path, port: int) -> np.ndarray:
    """The logits that ``block`` leaves behind."""
    address = f"tcp://127.0.0.1:{port}"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    open_session = DecodeSession.open

    class Opened:
        @staticmethod
        def open(name, device):
            assert (name, device) == (f"artifacts/rank{rank}", f"cuda://{rank}")
            return open_session(folder, "emulated")

    pool = PagePool(read_manifest(folder).geometry)
    names = {
        "DecodeSession": Opened,
        "tokens": np.array([386, 425]),
        "placement": pool.append([PagedSequence(), PagedSequence()]),
    }
    exec(block, names)
    return names["logits"]
