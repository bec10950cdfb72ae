"""Cases of `moe_down`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.block_scaled import close, quantized_rows, tiled_weight
from tests.custom_kernels.cases.case import Case
from tests.custom_kernels.cases.moe_gate_up import routing, routings


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(16)
    compare = (close(element_format),)

    def case(label, ids, shape, factor=1.0, weight_factor=1.0):
        values, scales = quantized_rows(generator, ids.numel(), shape[-1], element_format)
        weights = torch.rand(ids.shape, generator=generator) * 2.5 * weight_factor
        weight = tiled_weight(generator, shape, element_format)
        return Case(label, (values, scales * factor, ids, weights, *weight, 0), compare)

    made = [case(label, ids, (experts, 32, 128)) for label, ids, experts in routings(generator)]
    ids = routing(generator, 4, 3, 6)
    poisoned = case("NaN in one pair", ids, (6, 32, 256))
    poisoned.arguments[1][1, 4] = float("nan")
    made += [
        case("last scale block partly full", ids, (6, 144, 256)),
        case("three groups", ids, (6, 32, 384)),
        case("five groups", ids, (6, 32, 640)),
        case("last workgroup partly full", routing(generator, 2, 2, 2), (2, 6160, 128)),
        case("1024 columns", ids, (6, 32, 1024)),
        case("20 experts a row", routing(generator, 3, 20, 24), (24, 16, 256)),
        case("33 rows of 20 experts", routing(generator, 33, 20, 24), (24, 16, 128)),
        case("zero weights", ids, (6, 32, 256), weight_factor=0.0),
        case("zero activations", ids, (6, 32, 256), 0.0),
        case("huge", ids, (6, 32, 256), 1e12),
        case("tiny", ids, (6, 32, 256), 1e-12),
        poisoned,
        case("GLM-5.1 rank, 12 experts", routing(generator, 2, 9, 12), (12, 6144, 256)),
        case("GLM-5.1 rank, 5 rows", routing(generator, 5, 9, 257), (257, 80, 256)),
    ]
    return made
