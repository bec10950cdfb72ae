"""What a step gives: results that stay on the device, and perhaps are still being computed."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import iree.runtime as rt
import numpy as np

from predecode.pipelines.device_tensor import DeviceTensor

if TYPE_CHECKING:
    from predecode.pipelines.session import DecodeSession


class StepResults:
    """The results of one step by name. ``rows`` of their rows are the caller's, those behind them padding."""

    def __init__(self, session: "DecodeSession", rows: int, arrays: Mapping[str, "rt.DeviceArray | np.ndarray"]):
        self.rows = rows
        # Before the session: attributes are freed in this order, and its device must outlive the arrays.
        self._arrays = dict(arrays)
        self._session = session

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the results."""
        return tuple(self._arrays)

    def wait(self) -> None:
        """Return when the step has ended; raises a `PredecodeError` when it failed."""
        self._session.wait()

    def to_host(self) -> dict[str, np.ndarray]:
        """Copies in host memory, the caller's rows only."""
        self.wait()
        return {name: to_host(array)[: self.rows] for name, array in self._arrays.items()}

    def tensor(self, name: str) -> DeviceTensor:
        """A result of all compiled rows for another library, without a copy: ``torch.from_dlpack(...)``.

        DLPack of this runtime has no FP8; results are bfloat16, float32 or int32.
        """
        self.wait()
        array = self._arrays[name]
        if not isinstance(array, rt.DeviceArray):
            array = rt.asdevicearray(self._session.device, array)
        return self._session.tensor(array)


def to_host(value: "rt.DeviceArray | np.ndarray") -> np.ndarray:
    """A copy in host memory: what `DeviceArray.to_host` gives of a CPU buffer dies with the buffer."""
    return np.array(value.to_host()) if isinstance(value, rt.DeviceArray) else value
