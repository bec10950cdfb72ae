"""The batch that `predecode bench` times, as torch tensors, with caches cut down to the pages that it uses."""

from dataclasses import dataclass

import numpy as np
import torch

from predecode.custom_kernels.cache_bytes import bytes_to_float32
from predecode.custom_kernels.layouts import INDEXER_HEAD_DIM, PAGE_TOKENS, PRESHUFFLED_PAGE, TILE, TILED_16X16
from predecode.pipelines.bench.batch import cache_contents, make_batch, step_arguments
from predecode.pipelines.manifest import Manifest

FP8 = torch.float8_e4m3fn


@dataclass(frozen=True, slots=True)
class StepInputs:
    """One step of T rows. Slots and page numbers count in the cut-down caches, whose pages keep their order.

    ``hidden`` and ``residual`` bfloat16 [T, hidden]; ``positions`` and ``slots`` int64 [T]; ``lengths`` int32 [T];
    ``block_table`` int32 [T, pages of the longest row]; ``indexer_pages`` and ``latent_pages`` int8
    [P, page bytes], laid out as the artifact has them.
    """

    hidden: torch.Tensor
    residual: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    lengths: torch.Tensor
    block_table: torch.Tensor
    indexer_pages: torch.Tensor
    latent_pages: torch.Tensor

    @property
    def rows(self) -> int:
        """T."""
        return len(self.lengths)


@dataclass(frozen=True, slots=True)
class PlainCaches:
    """Caches as torch code would hold them, with the same contents.

    ``keys`` float8 [P, 64, 128] with a scale each in ``key_scales`` float32 [P, 64]; ``latents`` float8
    [P * 64, latent + rope], one row per slot.
    """

    keys: torch.Tensor
    key_scales: torch.Tensor
    latents: torch.Tensor


class CachePools:
    """The artifact's cache contents, which are the same in every layer."""

    def __init__(self, manifest: Manifest):
        self._manifest = manifest
        arguments = manifest.entry_points[0].arguments
        self._indexer, self._latent = (
            cache_contents(next(spec for spec in arguments if spec.name.endswith(name)), manifest.target.element_format)
            for name in ("indexer_cache", "latent_cache")
        )

    def step_inputs(self, rows: int, context: str, device: torch.device) -> StepInputs:
        """The step that bench times for ``rows`` rows that see ``context`` tokens each."""
        batch = make_batch(self._manifest.geometry, rows, context)
        arguments = step_arguments(self._manifest, batch)
        counts = [-(-length // PAGE_TOKENS) for length in batch.lengths]
        table = arguments["block_table"][:, : max(counts)]
        used = np.unique(np.concatenate([row[:count] for row, count in zip(table, counts, strict=True)]))
        page, token = np.divmod(arguments["slot_mapping"], PAGE_TOKENS)

        def send(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        def send_bfloat16(array: np.ndarray) -> torch.Tensor:
            return send(array.view(np.int16)).view(torch.bfloat16)

        return StepInputs(
            hidden=send_bfloat16(arguments["hidden"]),
            residual=send_bfloat16(arguments["residual"]),
            positions=send(arguments["positions"]),
            slots=send(np.searchsorted(used, page) * PAGE_TOKENS + token),
            lengths=send(arguments["lengths"]),
            # Entries past a row's pages are never read, but must be pages.
            block_table=send(np.searchsorted(used, table).clip(max=len(used) - 1).astype(np.int32)),
            indexer_pages=send(self._indexer[used]),
            latent_pages=send(self._latent[used]),
        )


def plain_caches(step: StepInputs) -> PlainCaches:
    """The step's caches, unpacked; new memory at each call."""
    pages = len(step.indexer_pages)
    key_bytes = PAGE_TOKENS * INDEXER_HEAD_DIM
    tiles = step.indexer_pages[:, :key_bytes].reshape(pages, PAGE_TOKENS // TILE, INDEXER_HEAD_DIM // TILE, TILE, TILE)
    scales = bytes_to_float32(step.indexer_pages[:, PRESHUFFLED_PAGE.scale_offset(0, 1) :])
    latents = step.latent_pages.reshape(pages * PAGE_TOKENS, -1)
    return PlainCaches(TILED_16X16.unpack(tiles).view(FP8), scales, latents.clone().view(FP8))
