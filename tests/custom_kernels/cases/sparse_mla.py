"""Cases of `sparse_mla`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.case import Case, Comparison

PAGE = 64


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(7)

    def elements(*shape, factor=1.0):
        return element_format.encode(torch.randn(shape, generator=generator) * factor)

    def choose(rows, topk, slots, used):
        """Distinct slots from 1 on (slot 0 is poison), then -1."""
        picked = torch.full((rows, topk), -1, dtype=torch.int32)
        for row in range(rows):
            count = min(used[row % len(used)], slots - 1)
            order = torch.randperm(slots - 1, generator=generator)[:count] + 1
            picked[row, :count] = order.sort().values.to(torch.int32)
        return picked

    def case(label, rows, heads, latent, rope, topk, used, splits=1, pages=8, factor=1.0, scale=None, slots=None):
        width = latent + rope
        query = elements(rows, heads, width, factor=factor)
        stored = elements(pages * PAGE, width, factor=factor)
        stored[0] = torch.full((width,), float("nan")).to(stored.dtype)
        cache = stored.view(torch.int8).reshape(pages, -1)
        slots = choose(rows, topk, pages * PAGE, used) if slots is None else slots
        scale = width**-0.5 if scale is None else scale
        tolerance = Comparison(relative=2.0**-9 if element_format.is_quantized else 2e-5, absolute=1e-30)
        arguments = (query, cache, slots, latent, scale, splits)
        return Case(label, arguments, (tolerance, Comparison(relative=2e-6, absolute=1e-5)))

    scattered = choose(2, 70, 8 * PAGE, [70])
    scattered[0, ::3] = -1
    scattered[1, :64] = -1
    repeated = torch.full((1, 40), 9, dtype=torch.int32)
    backwards = choose(2, 64, 8 * PAGE, [64]).flip(1)
    holes = choose(2, 400, 8 * PAGE, [400])
    holes[0, 64:128] = -1
    holes[1, 128:] = -1
    return [
        case("one slot", 1, 1, 64, 64, 1, [1]),
        case("slots around a tile", 5, 4, 64, 64, 65, [31, 32, 33, 64, 65]),
        case("slots around a tile, 2 splits", 5, 4, 64, 64, 130, [1, 63, 64, 65, 130], splits=2),
        case("no slots", 2, 4, 64, 64, 32, [0]),
        case("some rows without slots", 3, 2, 64, 64, 100, [0, 7], splits=2),
        case("-1 in between", 2, 4, 64, 64, 70, [0], slots=scattered),
        case("tiles without slots, 3 splits", 2, 4, 128, 64, 400, [0], splits=3, slots=holes),
        case("more splits than tiles", 2, 4, 64, 64, 100, [0, 100], splits=5),
        case("one slot repeated", 1, 2, 64, 64, 40, [0], slots=repeated),
        case("descending slots", 2, 2, 64, 64, 64, [0], slots=backwards),
        case("3 heads", 2, 3, 64, 64, 64, [50]),
        case("12 heads of 192 columns", 2, 12, 128, 64, 64, [50]),
        case("24 heads, 63 rows", 63, 24, 64, 64, 64, [64, 20, 1]),
        case("65 rows", 65, 2, 64, 64, 32, [32, 20, 0, 1]),
        case("all columns are values", 3, 8, 128, 0, 200, [200, 10]),
        case("values of 320 columns", 2, 8, 320, 64, 200, [200, 10], splits=2),
        case("128 heads", 1, 128, 64, 64, 128, [128], splits=2),
        case("zero queries", 2, 4, 64, 64, 64, [50], factor=0.0),
        case("tiny values", 1, 4, 64, 64, 64, [50], factor=2.0**-8),
        case("a softmax on one slot", 2, 4, 64, 64, 64, [64], factor=20.0, scale=1.0),
        case("an even softmax", 1, 4, 64, 64, 64, [64], scale=1e-6),
        case("GLM-5.1, 2 rows", 2, 8, 512, 64, 2048, [2048, 777], splits=8, pages=40, scale=1 / 16),
        case("DeepSeek-V3.2, 16 heads", 1, 16, 512, 64, 2048, [2048], splits=5, pages=40, scale=0.13523),
    ]
