"""Stand-ins for the rivals' libraries on the CPU, each written from its kernel's description of formats and results."""

import math
from types import SimpleNamespace

import torch

_GROUP = 128


def _expand(scales: torch.Tensor, rows: int, columns: int, *, block_rows: int) -> torch.Tensor:
    wide = scales.repeat_interleave(_GROUP, -1)[..., :columns]
    return wide.repeat_interleave(block_rows, -2)[..., :rows, :]


def _product(x, x_scales, weight, weight_scales) -> torch.Tensor:
    rows, columns = x.shape
    left = x.float() * _expand(x_scales, rows, columns, block_rows=1)
    right = weight.float() * _expand(weight_scales, *weight.shape, block_rows=_GROUP)
    return (left @ right.T).bfloat16()


class DeepGemm(SimpleNamespace):
    """The functions of `deep_gemm` that are used. ``scale`` other than one makes every result wrong."""

    def __init__(self, scale: float = 1.0):
        super().__init__(scale=scale)

    def get_num_sms(self) -> int:
        return 132

    def get_mn_major_tma_aligned_tensor(self, scales: torch.Tensor) -> torch.Tensor:
        return scales.mT.contiguous().mT

    def fp8_gemm_nt(self, a, b, d, compiled_dims: str) -> None:
        assert a[1].stride(-2) == 1 and b[0].is_contiguous() and b[1].is_contiguous()
        assert compiled_dims == "nk" and d.dtype == torch.bfloat16
        d.copy_(_product(*a, *b) * self.scale)

    def fp8_m_grouped_gemm_nt_masked(self, a, b, d, masked_m, expected_m: int) -> None:
        assert masked_m.dtype == torch.int32 and expected_m >= 1 and a[1].stride(-2) == 1
        for group, used in enumerate(masked_m.tolist()):
            assert used <= a[0].shape[1]
            part = _product(a[0][group], a[1][group], b[0][group], b[1][group])
            d[group, :used] = part[:used] * self.scale

    def get_paged_mqa_logits_metadata(self, lengths: torch.Tensor, page: int, multiprocessors: int) -> torch.Tensor:
        assert lengths.dim() == 2 and lengths.dtype == torch.int32 and page == 64
        return torch.zeros(multiprocessors + 1, 2, dtype=torch.int32)

    def fp8_paged_mqa_logits(self, q, pages, weights, lengths, table, schedule, most) -> torch.Tensor:
        assert pages.dtype == torch.uint8 and pages.shape[1:] == (64, 1, 132) and q.shape[1] == 1
        flat = pages.flatten(1)
        result = torch.full((len(q), most), float("nan"))
        for row, length in enumerate(lengths[:, 0].tolist()):
            for position in range(length):
                page, token = flat[table[row, position // 64]], position % 64
                key = page[token * 128 : token * 128 + 128].view(torch.float8_e4m3fn).float()
                scale = page[8192 + token * 4 : 8196 + token * 4].clone().view(torch.float32)
                scores = (q[row, 0].float() @ key * scale).relu()
                result[row, position] = (scores * weights[row]).sum() * self.scale
        return result


def fast_topk_transform_fused(score, lengths, result, page_table, starts, row_starts) -> None:
    """The slots of the largest 2048 scores, here in falling order."""
    assert row_starts is None and starts.tolist() == list(range(len(score) + 1))
    result.fill_(-1)
    for row, length in enumerate(lengths.tolist()):
        chosen = score[row, :length].topk(min(length, result.shape[1])).indices
        result[row, : len(chosen)] = page_table[row][chosen]


def sparse_decode_fwd(
    q, kv, indices, topk_length, sink, schedule, splits, extra_kv, extra_indices, extra_length, d_v, sm_scale
):
    """Attention over rows of 656 bytes: 512 in FP8, four float32 scales, 64 in bfloat16."""
    assert q.shape[1:] == (1, 64, 576) and kv.shape[1:] == (64, 1, 656) and d_v == 512
    rows = kv.reshape(-1, 656).view(torch.uint8)
    scales = rows[:, 512:528].clone().view(torch.float32).repeat_interleave(128, 1)
    latents = rows[:, :512].clone().view(torch.float8_e4m3fn).float() * scales
    keys = torch.cat([latents, rows[:, 528:].clone().view(torch.bfloat16).float()], 1)
    result = torch.zeros(len(q), 1, 64, 512)
    for row in range(len(q)):
        chosen = keys[[slot for slot in indices[row, 0].tolist() if slot >= 0]]
        weights = torch.exp((q[row, 0].float() @ chosen.T) * sm_scale)
        result[row, 0] = weights / weights.sum(-1, keepdim=True) @ chosen[:, :512]
    made = torch.zeros(1, dtype=torch.int32)
    return result.bfloat16(), torch.tensor(math.nan), schedule if schedule is not None else made, made
