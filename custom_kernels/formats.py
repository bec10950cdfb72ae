"""Element formats of quantised tensors.

A chip decides which FP8 format its matrix units read: gfx942 reads E4M3FNUZ (maximum 240, one NaN at 0x80,
exponent bias 8), gfx950 and sm_90 read E4M3FN (maximum 448, NaN at 0x7F and 0xFF, bias 7). The same byte means
half as much in FNUZ. ``FLOAT32`` switches quantisation off: values stay float32 and every scale is one, so that
the same model can be compared with an unquantised one.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class ElementFormat:
    """How one element of a quantised tensor is stored.

    ``maximum`` is the magnitude that quantisation maps a group's largest value to. ``indexer_query_maximum`` is
    the same for the lightning indexer's query (SGLang `act_quant` uses 224, not 240, with FNUZ).
    """

    name: str
    dtype: torch.dtype
    maximum: float
    indexer_query_maximum: float

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    @property
    def is_quantized(self) -> bool:
        """False for ``FLOAT32``, whose scales are all one."""
        return self.itemsize == 1

    @property
    def activation_dtype(self) -> torch.dtype:
        """dtype of activations between ops: bfloat16, or float32 when quantisation is off."""
        return torch.bfloat16 if self.is_quantized else torch.float32

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """float32 -> this format, rounded to nearest even, saturating at ``maximum`` (NaN stays NaN).

        Compiled casts do not saturate, so the clamp is part of the definition.
        """
        if not self.is_quantized:
            return x.float()
        return x.float().clamp(-self.maximum, self.maximum).to(self.dtype)


E4M3FN = ElementFormat("e4m3fn", torch.float8_e4m3fn, 448.0, 448.0)
E4M3FNUZ = ElementFormat("e4m3fnuz", torch.float8_e4m3fnuz, 240.0, 224.0)
FLOAT32 = ElementFormat("float32", torch.float32, float("inf"), float("inf"))

ELEMENT_FORMATS = {f.name: f for f in (E4M3FN, E4M3FNUZ, FLOAT32)}
FORMAT_OF_DTYPE = {f.dtype: f for f in ELEMENT_FORMATS.values()}


def group_scale(amax: torch.Tensor, floor: float, maximum: float) -> torch.Tensor:
    """float32 dequantisation multiplier of a group: ``max(amax, floor) / maximum`` (aiter `per_1x128` quant).

    One everywhere when quantisation is off (``maximum`` infinite).
    """
    if maximum == float("inf"):
        return torch.ones_like(amax, dtype=torch.float32)
    return amax.float().clamp_min(floor) / maximum
