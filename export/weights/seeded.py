"""A virtual checkpoint: the names and shapes of a real one, with numbers computed from a seed.

Every element is a function of (seed, tensor name, row, column), so a shard reads the numbers that the whole
model has there, without generating the rest. A 64-bit word (SplitMix64 of a counter) gives eight neighbouring
columns; each of its bytes picks one of 256 levels of a normal distribution.
"""

import hashlib
import re
from statistics import NormalDist

import numpy as np
import torch

from predecode.custom_kernels.formats import E4M3FN
from predecode.export.config import ModelConfig
from predecode.export.weights.checkpoint_tensors import (
    CheckpointTensor,
    expected_tensors,
    scale_name,
    scale_shape,
)
from predecode.export.weights.source import Region, TensorFacts, require_region

_COLUMNS_PER_WORD = 8
_WORDS_PER_CHUNK = 1 << 16  # 512 KiB, stays in cache
_LEVELS = np.array([NormalDist().inv_cdf((code + 0.5) / 256) for code in range(256)])
_FP8_STEP = E4M3FN.maximum / _LEVELS[-1]
"""FP8 value of one standard deviation: the outermost level is the largest FP8 number."""

# Output gain of linear layers on inputs of unit variance, one where none matches. Branches add little to the
# residual stream, as in trained models: where rounding tips the choice of an expert, the step still gives
# nearly the same logits. With gains of one, two correct runs of the same FP8 model drift apart.
_GAINS = (
    (re.compile(r"\.mlp\.experts\.\d+\.down_proj\."), 0.07),
    (re.compile(r"\.down_proj\."), 0.25),
    (re.compile(r"\.o_proj\."), 0.5),
)
# Mean and standard deviation of the tensors that are not linear weights.
_NORM = (1.0, 0.1)
_MOMENTS = {
    "k_norm.bias": (0.0, 0.1),
    # Trained to even out the routing: 64 rows of noise are to use nearly as many experts as even routing would.
    "e_score_correction_bias": (0.0, 0.02),
    "embed_tokens.weight": (0.0, 1.0),
}


class SeededWeights:
    """FP8 block-scaled random weights for ``config``, a `TensorSource`; equal seeds give equal numbers."""

    def __init__(self, config: ModelConfig, seed: int):
        self.where = f"seeded weights (seed {seed})"
        self.tensors: dict[str, TensorFacts] = {}
        self._seed = seed
        self._expected = expected_tensors(config)
        for name, tensor in self._expected.items():
            self.tensors[name] = TensorFacts(tensor.shape, _dtype(name, tensor))
            if tensor.block_scaled:
                self.tensors[scale_name(name)] = TensorFacts(scale_shape(tensor.shape), torch.float32)

    def read(self, name: str, region: Region) -> torch.Tensor:
        """See `TensorSource.read`."""
        facts = require_region(self, name, region)
        rows, columns = region if len(region) == 2 else (slice(0, 1), region[0])
        key = int.from_bytes(hashlib.blake2b(f"{self._seed}:{name}".encode(), digest_size=8).digest(), "little")
        if name in self._expected:
            table = _byte_table(name, self._expected[name], facts.dtype)
            values = _pick(key, facts.shape[-1], rows, columns, table).view(facts.dtype)
        else:
            fan_in = self.tensors[name.removesuffix("_scale_inv")].shape[1]
            values = torch.from_numpy(_scales(key, facts.shape[-1], rows, columns) * _scale(name, fan_in))
        return values.reshape([part.stop - part.start for part in region])


def _dtype(name: str, tensor: CheckpointTensor) -> torch.dtype:
    if tensor.block_scaled:
        return torch.float8_e4m3fn
    return torch.float32 if name.endswith("e_score_correction_bias") else torch.bfloat16


def _scale(name: str, fan_in: int) -> np.float32:
    """Mean block scale of a linear weight: elements get the standard deviation ``gain / sqrt(fan_in)``."""
    gain = next((gain for pattern, gain in _GAINS if pattern.search(name)), 1.0)
    return np.float32(gain / (fan_in**0.5 * _FP8_STEP))


def _byte_table(name: str, tensor: CheckpointTensor, dtype: torch.dtype) -> list[bytes]:
    """Byte ``j`` of the element that a random byte stands for is ``table[j][random byte]``."""
    if tensor.block_scaled:
        elements = E4M3FN.encode(torch.from_numpy(_LEVELS * _FP8_STEP))
    else:
        named = next((moments for part, moments in _MOMENTS.items() if part in name), None)
        mean, deviation = named or (_NORM if len(tensor.shape) == 1 else (0.0, tensor.shape[1] ** -0.5))
        elements = torch.from_numpy(mean + deviation * _LEVELS).to(dtype)
    stored = elements.view(torch.uint8).numpy().reshape(256, dtype.itemsize)
    return [stored[:, byte].tobytes() for byte in range(dtype.itemsize)]


def _words(key: int, width: int, rows: slice, first: int, last: int) -> np.ndarray:
    """uint64 [rows, last - first]: SplitMix64 of each word's place (rows of ``width`` words) and ``key``."""
    row = np.arange(rows.start, rows.stop, dtype=np.uint64)[:, None] * np.uint64(width)
    words = row + np.arange(first, last, dtype=np.uint64)
    words *= np.uint64(0x9E3779B97F4A7C15)
    words += np.uint64(key)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        words ^= words >> np.uint64(shift)
        words *= np.uint64(factor)
    words ^= words >> np.uint64(31)
    return words


def _pick(key: int, row_columns: int, rows: slice, columns: slice, table: list[bytes]) -> torch.Tensor:
    """uint8 [rows, columns * itemsize]: table elements picked by the random byte of each position."""
    width = -(-row_columns // _COLUMNS_PER_WORD)
    first, last = columns.start // _COLUMNS_PER_WORD, -(-columns.stop // _COLUMNS_PER_WORD)
    cut = slice(columns.start - first * _COLUMNS_PER_WORD, columns.stop - first * _COLUMNS_PER_WORD)
    out = np.empty((rows.stop - rows.start, cut.stop - cut.start, len(table)), np.uint8)
    step = max(_WORDS_PER_CHUNK // max(last - first, 1), 1)
    for begin in range(rows.start, rows.stop, step):
        part = slice(begin, min(begin + step, rows.stop))
        random = _words(key, width, part, first, last).astype("<u8", copy=False).tobytes()
        for byte, translation in enumerate(table):
            picked = np.frombuffer(random.translate(translation), np.uint8)
            out[part.start - rows.start : part.stop - rows.start, :, byte] = picked.reshape(part.stop - part.start, -1)[
                :, cut
            ]
    return torch.from_numpy(out.reshape(out.shape[0], -1))


def _scales(key: int, width: int, rows: slice, columns: slice) -> np.ndarray:
    """float32 [rows, columns]: uniform in [0.5, 1.5), one word each."""
    words = _words(key, width, rows, columns.start, columns.stop)
    return (words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24) + np.float32(0.5)
