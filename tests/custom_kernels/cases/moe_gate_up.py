"""Cases of `moe_gate_up`, and the routings that `moe_down` is tried with too."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.block_scaled import close, quantized_rows, tiled_weight
from tests.custom_kernels.cases.case import Case


def routing(generator: torch.Generator, rows: int, experts_per_row: int, experts: int) -> torch.Tensor:
    """int32 [rows, experts_per_row]: different random experts, the last one shared by all rows."""
    routed = [torch.randperm(experts - 1, generator=generator)[: experts_per_row - 1] for _ in range(rows)]
    shared = torch.full((rows, 1), experts - 1)
    return torch.cat((torch.stack(routed), shared), 1).to(torch.int32)


def routings(generator: torch.Generator) -> list[tuple[str, torch.Tensor, int]]:
    """(label, expert ids, number of experts)."""
    same = torch.tensor([[2, 0], [2, 0], [2, 1]], dtype=torch.int32)
    twice = torch.tensor([[1, 1, 0], [3, 1, 3]], dtype=torch.int32)
    return [
        ("one row", routing(generator, 1, 3, 5), 5),
        ("all rows alike", same, 3),
        ("an expert twice in a row", twice, 4),
        ("5 rows", routing(generator, 5, 4, 40), 40),
        ("17 rows", routing(generator, 17, 3, 30), 30),
        ("63 rows", routing(generator, 63, 3, 6), 6),
        ("65 rows of the shared expert", routing(generator, 65, 2, 4), 4),
        ("150 rows of one expert", torch.zeros(150, 1, dtype=torch.int32), 2),
    ]


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(15)
    compare = (close(element_format),)

    def case(label, ids, shape, factor=1.0):
        values, scales = quantized_rows(generator, len(ids), shape[-1], element_format)
        weight = tiled_weight(generator, shape, element_format)
        return Case(label, (values, scales * factor, ids, *weight, 0), compare)

    made = [case(label, ids, (experts, 32, 256)) for label, ids, experts in routings(generator)]
    ids = routing(generator, 4, 3, 6)
    made += [
        case("last scale block partly full", ids, (6, 160, 128)),
        case("more groups than waves", ids, (6, 32, 1280)),
        case("more groups than registers", ids, (6, 32, 3712)),
        case("zeros", ids, (6, 32, 128), 0.0),
        case("huge", ids, (6, 32, 128), 1e12),
        case("tiny", ids, (6, 32, 128), 1e-12),
        case("more units than workgroups", routing(generator, 20, 9, 40), (40, 320, 256)),
        case("GLM-5.1 rank, 12 experts", routing(generator, 2, 9, 12), (12, 512, 6144)),
        case("GLM-5.1 rank, 257 experts", routing(generator, 5, 9, 257), (257, 32, 128)),
    ]
    return made
