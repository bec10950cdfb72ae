"""The model's own definition of a layer, run on the rivals' inputs: what every layer is compared with."""

import torch

from predecode.export.model.segments import Segment
from predecode.export.on_device import OnDevice
from tests.rivals.inputs import StepInputs


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
