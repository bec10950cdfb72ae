"""Running the model eagerly on another device than the CPU."""

import torch
from torch.overrides import TorchFunctionMode

from predecode.custom_kernels.op import OPS

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
