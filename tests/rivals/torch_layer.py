"""One MoE decoder layer in plain torch, as one writes it without kernels of one's own."""

from collections.abc import Callable

import torch
from torch.nn import functional

from predecode.custom_kernels.hadamard import hadamard_signs
from predecode.custom_kernels.layouts import GROUP, INDEXER_HEAD_DIM, PAGE_TOKENS
from predecode.export.config import ModelConfig
from predecode.export.model.attention import ROPE_LAYOUT
from predecode.export.model.indexer import KEY_NORM_EPSILON
from tests.rivals.inputs import FP8, PlainCaches, StepInputs
from tests.rivals.torch_weights import AttentionWeights, Fp8Weight, IndexerWeights, LayerWeights, Matrix

Experts = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, tuple], torch.Tensor]
_FP8_MAXIMUM = 448.0
_ACTIVATION_FLOOR = 1e-10
_KEY_FLOOR = 1e-4


class TorchLayer:
    """Calls take the stream [T, hidden] in bfloat16 and return it; the rows' own tokens are written to the caches."""

    def __init__(self, config: ModelConfig, experts: Experts, device: torch.device):
        self.config = config
        self.experts = experts
        self.interleaved_attention = ROPE_LAYOUT == "interleaved"
        self.interleaved_indexer = config.indexer_rope_layout == "interleaved"
        signs = hadamard_signs(INDEXER_HEAD_DIM) * INDEXER_HEAD_DIM**-0.5
        self.hadamard = signs.bfloat16().to(device)

    def __call__(
        self,
        weights: LayerWeights,
        caches: PlainCaches,
        step: StepInputs,
        hidden: torch.Tensor,
        residual: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden and residual after the layer."""
        cosines, sines = weights.rope_table[step.positions][:, None].chunk(2, -1)
        normed, residual = add_norm(hidden, residual, weights.attention.input_norm, self.config.rms_norm_eps)
        query_latent = self.write_latents(weights.attention, caches, step, normed, cosines, sines)
        slots = self.select(weights.indexer, caches, step, normed, query_latent, cosines, sines)
        hidden = self.attend(weights.attention, caches, query_latent, slots, cosines, sines)
        normed, residual = add_norm(hidden, residual, weights.experts.norm, self.config.rms_norm_eps)
        ids, gates = self.route(normed, weights.experts.router, weights.experts.correction_bias)
        return self.experts(normed, ids, gates, weights.experts), residual

    def write_latents(
        self,
        weights: AttentionWeights,
        caches: PlainCaches,
        step: StepInputs,
        normed: torch.Tensor,
        cosines: torch.Tensor,
        sines: torch.Tensor,
    ) -> torch.Tensor:
        """The query's latent bfloat16 [T, q_lora]."""
        config = self.config
        sizes = [config.q_lora_rank, config.kv_lora_rank, config.qk_rope_head_dim]
        query, latent, key = linear(normed, weights.qkv_a).split(sizes, -1)
        latent = norm(latent, weights.latent_norm, config.latent_norm_eps)
        key = rotate(key[:, None], cosines, sines, self.interleaved_attention)[:, 0]
        caches.latents.view(torch.int8)[step.slots] = to_fp8(torch.cat([latent, key], -1)).view(torch.int8)
        return norm(query, weights.query_norm, config.latent_norm_eps)

    def select(
        self,
        weights: IndexerWeights,
        caches: PlainCaches,
        step: StepInputs,
        normed: torch.Tensor,
        query_latent: torch.Tensor,
        cosines: torch.Tensor,
        sines: torch.Tensor,
    ) -> torch.Tensor:
        """Slots int64 [T, topk or fewer] of the tokens to attend to, -1 past a row's length."""
        key = functional.layer_norm(
            linear(normed, weights.wk).float(),
            (INDEXER_HEAD_DIM,),
            weights.norm_weight.float(),
            weights.norm_bias.float(),
            KEY_NORM_EPSILON,
        ).bfloat16()
        key, key_scale = self._rotate_and_quantize(key[:, None], cosines, sines)
        page, token = step.slots // PAGE_TOKENS, step.slots % PAGE_TOKENS
        caches.keys.view(torch.int8)[page, token] = key[:, 0].view(torch.int8)
        caches.key_scales[page, token] = key_scale[:, 0]

        query = linear(query_latent, weights.wq_b).unflatten(-1, (-1, INDEXER_HEAD_DIM))
        query, query_scale = self._rotate_and_quantize(query, cosines, sines)
        gates = functional.linear(normed, weights.gates).float() * query_scale
        gates = gates * (gates.shape[1] * INDEXER_HEAD_DIM) ** -0.5
        keys = caches.keys.view(torch.int8)[step.block_table].view(FP8).flatten(1, 2).bfloat16()
        scales = caches.key_scales[step.block_table].flatten(1)
        scores = torch.bmm(query.bfloat16(), keys.transpose(1, 2)).float().relu()
        logits = (scores * gates[..., None]).sum(1) * scales
        position = torch.arange(logits.shape[1], device=logits.device)
        logits = logits.masked_fill(position >= step.lengths[:, None], float("-inf"))
        chosen = logits.topk(min(self.config.index_topk, logits.shape[1]), -1, sorted=False).indices
        slots = step.block_table.long().gather(1, chosen // PAGE_TOKENS) * PAGE_TOKENS + chosen % PAGE_TOKENS
        return slots.masked_fill(chosen >= step.lengths[:, None], -1)

    def attend(
        self,
        weights: AttentionWeights,
        caches: PlainCaches,
        query_latent: torch.Tensor,
        slots: torch.Tensor,
        cosines: torch.Tensor,
        sines: torch.Tensor,
    ) -> torch.Tensor:
        """bfloat16 [T, hidden], this rank's part."""
        config = self.config
        query = linear(query_latent, weights.q_b).unflatten(-1, (-1, config.qk_head_dim))
        nope, rope = query.split([config.qk_nope_head_dim, config.qk_rope_head_dim], -1)
        absorbed = torch.bmm(nope.transpose(0, 1), weights.key_up).transpose(0, 1)
        rope = rotate(rope, cosines, sines, self.interleaved_attention)
        query = to_fp8(torch.cat([absorbed, rope], -1)).bfloat16()
        keys = caches.latents.view(torch.int8)[slots.clamp_min(0)].view(FP8).bfloat16()
        scores = torch.bmm(query, keys.transpose(1, 2)).float() * config.softmax_scale
        shares = scores.masked_fill((slots < 0)[:, None], float("-inf")).softmax(-1).bfloat16()
        attended = torch.bmm(shares, keys[..., : config.kv_lora_rank])
        values = torch.bmm(attended.transpose(0, 1), weights.value_up).transpose(0, 1)
        return linear(values.flatten(1), weights.o_proj)

    def route(
        self, normed: torch.Tensor, router: torch.Tensor, correction_bias: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Expert ids int64 and weights float32 [T, k], shared experts last."""
        config = self.config
        scores = functional.linear(normed.float(), router).sigmoid()
        ids = (scores + correction_bias).topk(config.num_experts_per_tok, -1).indices
        gates = scores.gather(1, ids)
        if config.norm_topk_prob:
            gates = gates / gates.sum(-1, keepdim=True)
        shared = torch.arange(config.n_shared_experts, device=ids.device) + config.n_routed_experts
        ids = torch.cat([ids, shared.expand(len(ids), -1)], 1)
        return ids, functional.pad(gates * config.routed_scaling_factor, (0, config.n_shared_experts), value=1.0)

    def _rotate_and_quantize(
        self, heads: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[T, heads, 128] in FP8 and a power-of-two scale per head: the cached keys are stored so."""
        rope = cosines.shape[-1] * 2
        turned = rotate(heads[..., :rope], cosines, sines, self.interleaved_indexer)
        mixed = (torch.cat([turned, heads[..., rope:]], -1) @ self.hadamard).float()
        scale = torch.exp2((mixed.abs().amax(-1).clamp_min(_KEY_FLOOR) / _FP8_MAXIMUM).log2().ceil())
        return to_fp8(mixed / scale[..., None]), scale


def linear(x: torch.Tensor, weight: Matrix) -> torch.Tensor:
    """``x`` bfloat16 [T, K] times ``weight`` [N, K]; block-scaled where the weight is in FP8."""
    if not isinstance(weight, Fp8Weight):
        return functional.linear(x, weight)
    groups = x.float().unflatten(-1, (-1, GROUP))
    scales = groups.abs().amax(-1).clamp_min(_ACTIVATION_FLOOR) / _FP8_MAXIMUM
    values = to_fp8(groups / scales[..., None]).flatten(1)
    # The library reads the rows' scales group by group.
    scales = scales.t().contiguous().t()
    return torch._scaled_mm(values, weight.values.t(), scales, weight.scales.t(), out_dtype=torch.bfloat16)


def norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """RMSNorm over the last axis, in float32, rounded to bfloat16."""
    return functional.rms_norm(x.float(), (x.shape[-1],), weight.float(), epsilon).bfloat16()


def add_norm(
    hidden: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The norm of the sum, and the sum."""
    total = hidden.float() + residual.float()
    return norm(total, weight, epsilon), total.bfloat16()


def rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor, interleaved: bool) -> torch.Tensor:
    """Rotary embedding of [T, heads, rope] by float32 [T, 1, rope / 2], in neighbouring pairs or in halves."""
    pairs = x.float().unflatten(-1, (-1, 2)) if interleaved else x.float().unflatten(-1, (2, -1)).transpose(-1, -2)
    first, second = pairs.unbind(-1)
    turned = torch.stack([first * cosines - second * sines, second * cosines + first * sines], -1)
    return (turned if interleaved else turned.transpose(-1, -2)).flatten(-2).to(x.dtype)


def to_fp8(x: torch.Tensor) -> torch.Tensor:
    """Rounded to E4M3, saturating."""
    return x.float().clamp(-_FP8_MAXIMUM, _FP8_MAXIMUM).to(FP8)
