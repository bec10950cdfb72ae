"""Cases of `topk_slots`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.case import EXACT, Case

PAGE = 64


def cases(element_format: ElementFormat) -> list[Case]:
    """The op reads no quantised tensor: the same cases for every format."""
    generator = torch.Generator().manual_seed(6)

    def case(label, lengths, pages, topk, logits=None, table=None):
        rows, width = len(lengths), pages * PAGE
        logits = torch.randn(rows, width, generator=generator) if logits is None else logits.float()
        lengths = torch.tensor(lengths, dtype=torch.int32)
        inside = torch.arange(width)[None] < lengths[:, None]
        # Beyond the length a kernel leaves whatever the buffer held.
        garbage = torch.tensor([float("nan"), float("inf"), 0.25, 3e38])[torch.arange(rows * width) % 4]
        logits = torch.where(inside, logits.expand(rows, width), garbage.reshape(rows, width))
        if table is None:
            table = torch.randint(0, 4 * pages, (rows, pages), generator=generator, dtype=torch.int32)
        else:
            table = table.clone()
        for row, length in enumerate(lengths.tolist()):
            table[row, -(-length // PAGE) :] = (-1, 2**24)[row % 2]  # never to be followed
        return Case(label, (logits, lengths, table, topk), (EXACT,))

    def row_of(*values, pages):
        return torch.tensor(values).repeat(-(-pages * PAGE // len(values)))[None, : pages * PAGE]

    edges = [0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 192]
    steep = torch.arange(0, 512).flip(0)[None].float()
    special = row_of(0.0, -0.0, 1e-45, -1e-45, float("inf"), float("-inf"), 1.0, -1.0, 3e38, -3e38, pages=4)
    not_a_number = torch.randn(1, 256, generator=generator)
    not_a_number[0, [3, 77, 200]] = torch.tensor([float("nan"), -float("nan"), float("nan")])
    tiny = torch.randn(1, 2048, generator=generator) * 1e-38
    close = 1.0 + torch.randint(0, 3, (1, 8192), generator=generator) * 2.0**-23
    outliers = torch.randn(1, 8192, generator=generator)
    outliers[0, ::700] *= 1e4
    octaves = torch.exp2(-(torch.arange(8192) * 37 % 8192) / 50.0)[None]
    # With the largest at 1 and the smallest at 0, so many lie between that no bin but theirs is chosen in part.
    crowd = torch.cat([torch.linspace(0, 1, 478), 0.5 + torch.arange(129) * 1e-6, torch.zeros(33)])[None]
    crowd = crowd[:, torch.randperm(640, generator=generator)]
    far_below = torch.randn(1, 8192, generator=generator)
    far_below[0, ::5] -= 1e4
    one_above = torch.randn(2, 8192, generator=generator).abs()
    one_above[:, -1] = torch.tensor([64.0, 1e30])
    # A row's first tokens and its own score unlike all others.
    first_and_own = torch.randn(2, 8192, generator=generator)
    first_and_own[:, [0, 1, 2, -1]] = torch.tensor([[300.0, 200.0, -500.0, 100.0], [-300.0, 900.0, 20.0, -1e6]])
    far_off = torch.randn(2, 8192, generator=generator)
    far_off[0, ::2048] = torch.tensor([1e3, 1e5, 1e7, -1e9])
    far_off[1, ::1024] = torch.tensor([1e3, -1e3, 1e5, -1e5, 1e7, -1e7, 1e9, -1e9])
    # As much far below as one lane of each wave holds: of 32 waves of 32 lanes, and of 16 waves of 64.
    position = torch.arange(8192)
    low_lanes, low_wide_lanes = torch.rand(2, 2, 8192, generator=generator)
    low_lanes[:, position // 4 % 32 == 5] -= 1e6
    low_wide_lanes[:, position // 4 % 64 == 5] -= 1e6
    recent = torch.randn(2, 8192, generator=generator) + torch.linspace(0, 30, 8192) ** 2
    # Most waves have the same lowest score, and the cut is among those.
    low_in_most = torch.rand(1, 8192, generator=generator)
    low_in_most[0, :5120:2] = -1.0
    in_every_lane = torch.randn(1, 8192, generator=generator)
    in_every_lane[0, 1024:1280] += torch.tensor([1e4, -1e4]).repeat_interleave(128)
    in_few_lanes = torch.randn(1, 8192, generator=generator) + 1e3 * (torch.arange(8192) // 4 % 32 == 9)
    heavy_tails = torch.tan((torch.rand(2, 8192, generator=generator) - 0.5) * 3.14159)
    products = torch.randn(8192, 16, generator=generator) @ torch.randn(16, 32, generator=generator)
    positive_parts = (products.clamp_min(0) @ torch.rand(32, generator=generator))[None]
    positive_parts[0, 8190] *= 60
    two_places = torch.randn(1, 8192, generator=generator) + 40.0 * (torch.rand(1, 8192, generator=generator) < 0.3)
    half_zero = torch.randn(2, 8192, generator=generator).clamp_min(0)
    many_zeros = torch.where(torch.rand(2, 8192, generator=generator) < 0.9, -0.0, half_zero)
    many_zeros[:, ::7] += 0.0  # a negative zero becomes a positive one
    nearly_all_equal = torch.full((1, 8192), 3.0)
    nearly_all_equal[0, [5, 700, 8000]] = torch.tensor([-1.0, 1e20, 4.0])
    # Rows beyond 8192 are sampled every second line of 32 here.
    line = torch.arange(16384) // 32
    low_in_sample = torch.randn(1, 16384, generator=generator) + 10.0 * (line % 2)
    high_in_sample = torch.randn(1, 16384, generator=generator) + 10.0 * (line % 2 == 0)
    # Of 40960, every fifth line.
    line = torch.arange(40960) // 32
    long_low_in_sample = torch.randn(1, 40960, generator=generator) + 10.0 * (line % 5 != 0)
    long_high_in_sample = torch.randn(1, 40960, generator=generator) + 10.0 * (line % 5 == 0)
    in_one_place = torch.randn(1, 16384, generator=generator)
    in_one_place[0, 5000:6000] += 20.0
    long_special = torch.randn(1, 16384, generator=generator)
    long_special[0, [3, 8200, 16000]] = torch.tensor([float("nan"), float("inf"), float("-inf")])
    backwards = torch.arange(9, -1, -1, dtype=torch.int32)[None].repeat(2, 1)
    return [
        case("one row, one token", [1], 1, 1),
        case("best of 64", [64], 1, 1),
        case("lengths at the edges, topk 16", edges, 3, 16),
        case("lengths at the edges, topk 64", edges, 3, 64),
        case("topk above the width", [0, 5, 64], 1, 100),
        case("lengths around topk", [127, 128, 129], 4, 128),
        case("all equal", [320, 321], 6, 64, torch.full((1, 384), -2.5)),
        case("all minus infinity", [300], 5, 70, torch.full((1, 320), float("-inf"))),
        case("two values", [512], 8, 100, row_of(1.0, 2.0, 2.0, 1.0, 1.0, pages=8)),
        case("ascending", [512], 8, 100, steep.flip(1)),
        case("descending", [512], 8, 100, steep),
        case("special values", [256, 255], 4, 77, special),
        case("NaN is above all", [256], 4, 2, not_a_number),
        case("equal but for the last bits", [8192, 8000], 128, 2048, close),
        case("tiny differences around zero", [2048], 32, 512, tiny),
        case("pages backwards", [640, 577], 10, 64, table=backwards),
        case("one page repeated", [640], 10, 64, table=torch.full((1, 10), 7, dtype=torch.int32)),
        case("65 rows", [(53 * row) % 257 for row in range(65)], 4, 32),
        case("129 in one bin", [640, 639, 600], 10, 364, crowd),
        case("128 in one bin", [640], 10, 364, torch.where(crowd == 0.5, 0.0, crowd)),
        case("some far below", [8191, 8192], 128, 2048, far_below),
        case("outliers", [8192], 128, 2048, outliers),
        case("one far above the others", [8192, 8190], 128, 2048, one_above),
        case("the first tokens and the own one far off", [8192, 8192], 128, 2048, first_and_own),
        case("some of the far off wanted", [8192, 8191], 128, 2, first_and_own),
        case("all but some of the far off wanted", [8192, 8192], 128, 8190, first_and_own),
        case("four and eight far off", [8192, 8000], 128, 2048, far_off),
        case("all but 256 in one lane of each wave wanted", [8192, 8191], 128, 7936, low_lanes),
        case("all but 255 in one lane of each wave wanted", [8192, 8191], 128, 7937, low_lanes),
        case("all but 128 in one lane of each wave wanted", [8192, 8191], 128, 8064, low_wide_lanes),
        case("all but 127 in one lane of each wave wanted", [8192, 8191], 128, 8065, low_wide_lanes),
        case("nearly all of some wanted", [2049, 2050, 2800, 2815, 2816, 2817], 45, 2048),
        case("the last are the largest", [8192, 8191], 128, 2048, recent),
        case("the first are not wanted", [3000, 2817], 47, 2048, recent[:, :3008]),
        case("the lowest in most waves equal", [8192, 8192], 128, 6000, low_in_most),
        case("outliers in every lane", [8192], 128, 2048, in_every_lane),
        case("outliers in few lanes, the cut among them", [8192], 128, 100, in_few_lanes),
        case("heavy tails", [8192, 7001], 128, 2048, heavy_tails),
        case("heavy tails, few wanted", [8192, 7001], 128, 5, heavy_tails),
        case("sums of positive parts", [8192], 128, 2048, positive_parts),
        case("two separate crowds", [8192], 128, 2048, two_places),
        case("half of them zero", [8192, 5000], 128, 2048, half_zero),
        case("the cut among zeros of both signs", [8192, 8191], 128, 2048, many_zeros),
        case("nearly all equal", [8192], 128, 2048, nearly_all_equal),
        case("many octaves", [8192], 128, 100, octaves),
        case("tiny and all of one size", [8192], 128, 100, torch.randn(1, 8192, generator=generator) * 1e-41),
        case("one more than registers hold", [8193], 129, 2048),
        case("a whole run of marks and a part", [8704, 8703, 9215, 8768], 144, 2048),
        case("a sample too low", [16384], 256, 1500, low_in_sample),
        case("a sample too high", [16384], 256, 6000, high_in_sample),
        case("a sample of five lines too low", [40960], 640, 1500, long_low_in_sample),
        case("a sample of five lines too high", [40960], 640, 4000, long_high_in_sample),
        case("the largest in one place", [16300], 256, 900, in_one_place),
        case("long and ascending", [16384], 256, 700, torch.arange(16384.0)[None]),
        case("long and all equal", [16384], 256, 300, torch.ones(1, 16384)),
        case("long, 5 values", [16383], 256, 1000, row_of(1.0, 2.0, 3.0, 2.0, 1.0, 0.0, 4.0, 1.0, pages=256)),
        case("long, heavy tails", [16384, 9000], 256, 2048, heavy_tails.repeat(1, 2)),
        case("long, one far above the others", [16384, 16383], 256, 2048, one_above.repeat(1, 2)),
        case("long, the first tokens and the own one far off", [16384, 16384], 256, 2048, first_and_own.repeat(1, 2)),
        case("long, the last are the largest", [16384, 16300], 256, 2048, recent.repeat(1, 2)),
        case("long, the cut among zeros", [16384, 9001], 256, 2048, many_zeros.repeat(1, 2)),
        case("long with NaN and infinities", [16384], 256, 300, long_special),
        case("topk beyond the bins", [7000, 8192, 9000], 144, 5000),
        case("GLM-5.1, 2 rows beyond 8192", [8704, 8191], 136, 2048),
        case("GLM-5.1, the longest context", [202752], 3168, 2048),
    ]
