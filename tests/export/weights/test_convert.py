"""FP8 conversions, byte by byte."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.formats import E4M3FN, E4M3FNUZ, FLOAT32
from predecode.export.weights.convert import convert_fp8, quantize_blocks


def decode(code: int, bias: int) -> float:
    """Number of an E4M3 code, both formats' special codes aside."""
    sign, exponent, mantissa = -1.0 if code & 0x80 else 1.0, code >> 3 & 15, code & 7
    if exponent == 0:
        return sign * mantissa * 2.0 ** (1 - bias - 3)
    return sign * (8 + mantissa) * 2.0 ** (exponent - bias - 3)


FN_NUMBERS = {code: decode(code, 7) for code in range(256) if code & 0x7F != 0x7F}


def codes_and_scale(codes, scale=0.75):
    values = torch.tensor([list(codes)], dtype=torch.uint8).view(torch.float8_e4m3fn)
    return values, torch.full((1, -(-values.shape[1] // 128)), scale)


def test_every_code_means_the_same_in_fnuz():
    values, scales = convert_fp8(*codes_and_scale(FN_NUMBERS), E4M3FNUZ)
    assert values.dtype == torch.float8_e4m3fnuz
    assert torch.equal(scales, torch.full((1, 2), 1.5))
    for code, given in zip(FN_NUMBERS, values.view(torch.uint8)[0].tolist(), strict=True):
        assert given == (0 if code == 0x80 else code)
        assert decode(given, 8) * 1.5 == FN_NUMBERS[code] * 0.75
        assert values[0].float()[list(FN_NUMBERS).index(code)].item() == decode(given, 8)


def test_scales_that_are_not_doubled_halve_the_numbers():
    values, scales = convert_fp8(*codes_and_scale(FN_NUMBERS), E4M3FNUZ)
    halved = values.float() * (scales[0, 0] / 2)
    assert np.array_equal(halved[0].double().numpy() * 2, np.array(list(FN_NUMBERS.values())) * 0.75)
    assert not np.array_equal(halved[0].double().numpy(), np.array(list(FN_NUMBERS.values())) * 0.75)


def test_fn_keeps_every_byte():
    values, scales = codes_and_scale(FN_NUMBERS)
    kept, kept_scales = convert_fp8(values, scales, E4M3FN)
    assert torch.equal(kept.view(torch.uint8), values.view(torch.uint8)) and torch.equal(kept_scales, scales)


def test_float32_gets_the_numbers():
    values, scales = convert_fp8(*codes_and_scale(FN_NUMBERS), FLOAT32)
    assert values[0].tolist() == [number * 0.75 for number in FN_NUMBERS.values()]
    assert torch.equal(scales, torch.ones(1, 2))


@pytest.mark.parametrize("element_format", [E4M3FN, E4M3FNUZ, FLOAT32], ids=lambda f: f.name)
@pytest.mark.parametrize("code", [0x7F, 0xFF])
def test_nan_is_refused(code, element_format):
    with pytest.raises(ValueError, match="NaN"):
        convert_fp8(*codes_and_scale([0, 1, code]), element_format)


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
def test_unusable_scale_is_refused(scale):
    with pytest.raises(ValueError, match="a scale is"):
        convert_fp8(*codes_and_scale([1, 2], scale), E4M3FN)


@pytest.mark.parametrize("element_format", [E4M3FN, E4M3FNUZ], ids=lambda f: f.name)
@pytest.mark.parametrize("shape", [(128, 128), (64, 256), (192, 128), (16, 128)])
def test_quantized_block_by_block(shape, element_format):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(*shape, generator=generator)
    weight[:, :128] *= 1000
    values, scales = quantize_blocks(weight, element_format)
    numbers = np.array([decode(code, 7 if element_format == E4M3FN else 8) for code in range(128)])
    numbers = numbers[numbers <= element_format.maximum]
    assert values.shape == shape and scales.shape == (-(-shape[0] // 128), shape[1] // 128)
    for row in range(0, shape[0], 128):
        for column in range(0, shape[1], 128):
            block = weight[row : row + 128, column : column + 128].numpy()
            scale = np.float32(np.abs(block).max()) / np.float32(element_format.maximum)
            assert scales[row // 128, column // 128].item() == scale
            wanted = (block / scale).astype(np.float64)
            got = values[row : row + 128, column : column + 128].float().double().numpy()
            nearest = np.abs(np.abs(wanted)[..., None] - numbers).min(-1)
            assert np.array_equal(np.abs(np.abs(got) - np.abs(wanted)), nearest)
            assert np.array_equal(np.sign(got) * np.sign(wanted) >= 0, np.ones(block.shape, bool))


def test_block_of_zeros_and_extremes():
    weight = torch.zeros(128, 384)
    weight[5, 130] = 3e38
    weight[7, 260] = -1e-30
    values, scales = quantize_blocks(weight, E4M3FN)
    assert torch.isfinite(scales).all() and (scales > 0).all()
    assert values.float()[:, :128].eq(0).all()
    assert values.float()[5, 130] == 448 and values.float()[7, 260] == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_not_finite_weight_is_refused(bad):
    weight = torch.zeros(16, 128)
    weight[3, 4] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        quantize_blocks(weight, E4M3FN)
