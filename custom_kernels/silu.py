"""The gate of the MLPs in plain torch: the arithmetic shared by the references of the ops that apply it."""

import torch


def silu_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up`` in float32, in the dtype of ``gate_up`` [R, 2I], whose first I columns are the gate's."""
    gate, up = gate_up.float().chunk(2, dim=-1)
    return (gate / (1.0 + torch.exp(-gate)) * up).to(gate_up.dtype)
