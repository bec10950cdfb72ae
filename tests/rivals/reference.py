"""The model's own definition of a layer, run on the rivals' inputs: what every layer is compared with."""

import torch
from torch.overrides import TorchFunctionMode

from predecode.custom_kernels.op import OPS
from predecode.export.model.segments import Segment
from tests.rivals.inputs import StepInputs

_CONSTRUCTORS = frozenset((torch.arange, torch.empty, torch.full, torch.ones, torch.tensor, torch.zeros))
_OVERLOADS = {getattr(torch.ops.predecode, name): name for name in OPS}


class OnDevice(TorchFunctionMode):
    """New tensors go to ``device``, also those of our ops' references, where ``with torch.device`` does not reach."""

    def __init__(self, device: torch.device):
        super().__init__()
        self._device = device

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        if function in _CONSTRUCTORS:
            keywords.setdefault("device", self._device)
        if function in _OVERLOADS:
            with self:
                return OPS[_OVERLOADS[function]].reference(*arguments, **keywords)
        return function(*arguments, **keywords)


def reference_layer(segment: Segment, step: StepInputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden and residual bfloat16 [T, hidden] after the one layer of ``segment``; ``step`` is left as it was."""
    values = {
        "hidden": step.hidden,
        "residual": step.residual,
        "positions": step.positions,
        "slot_mapping": step.slots,
        "lengths": step.lengths,
        "block_table": step.block_table,
    }
    (layer,) = segment.part.layers
    values[f"layers.{layer}.indexer_cache"] = step.indexer_pages
    values[f"layers.{layer}.latent_cache"] = step.latent_pages
    with OnDevice(step.hidden.device), torch.no_grad():
        hidden, residual, *_ = segment(*(values[spec.name] for spec in segment.arguments(step.rows)))
    return hidden, residual
