"""The mixture of experts: routed experts chosen per row, and shared experts that every row uses."""

import torch
from torch import nn

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.group_quant import group_quant
from predecode.custom_kernels.moe_down import moe_down
from predecode.custom_kernels.moe_gate_up import moe_gate_up
from predecode.custom_kernels.router_topk import router_topk
from predecode.custom_kernels.values import QuantizedActivation
from predecode.export.config import ModelConfig
from predecode.export.model.parameters import ExpertWeights, FloatLinear, empty_parameter


class Router(FloatLinear):
    """Scores of the routed experts; the same on every rank."""

    def __init__(self, config: ModelConfig, element_format: ElementFormat):
        super().__init__(config.n_routed_experts, config.hidden_size, element_format=element_format)
        self.config = config
        self.correction_bias = empty_parameter(config.n_routed_experts, dtype=torch.float32)

    def forward(self, normed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``normed`` [T, hidden] -> expert ids int32 and weights float32 [T, k], shared experts last."""
        config = self.config
        return router_topk(
            super().forward(normed),
            self.correction_bias,
            topk=config.num_experts_per_tok,
            groups=config.n_group,
            topk_groups=config.topk_group,
            renormalize=config.norm_topk_prob,
            scaling=config.routed_scaling_factor,
            shared_experts=config.n_shared_experts,
        )


class Experts(nn.Module):
    """Weights of all experts, shared ones after the routed ones, over one rank's ``intermediate`` columns."""

    def __init__(self, experts: int, hidden: int, intermediate: int, element_format: ElementFormat):
        super().__init__()
        self.gate_up = ExpertWeights(experts, 2 * intermediate, hidden, element_format)
        self.down = ExpertWeights(experts, hidden, intermediate, element_format)


class MixtureOfExperts(nn.Module):
    """Router and experts; the result of `forward` is a partial sum over ranks."""

    def __init__(self, config: ModelConfig, intermediate: int, element_format: ElementFormat):
        super().__init__()
        self.element_format = element_format
        self.router = Router(config, element_format)
        self.shared_experts = config.n_shared_experts
        experts = config.n_routed_experts + self.shared_experts
        self.experts = Experts(experts, config.hidden_size, intermediate, element_format)

    def forward(self, x: QuantizedActivation, normed: torch.Tensor) -> torch.Tensor:
        """``x`` [T, hidden] and ``normed``, its unquantised twin -> [T, hidden]."""
        ids, weights = self.router(normed)
        shared, experts = self.shared_experts, self.experts
        activated = moe_gate_up(x, ids, experts.gate_up.weight, shared_experts=shared)
        quantized = group_quant(activated, self.element_format)
        return moe_down(quantized, ids, weights, experts.down.weight, shared_experts=shared)
