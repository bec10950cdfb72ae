"""iree-turbine, made to work with the pinned compiler."""

import iree.compiler.ir as ir


def _restore_isinstance() -> None:
    """Give MLIR's Python classes back the static ``isinstance`` that iree-turbine 3.9 calls on them."""
    for name in dir(ir):
        cls = getattr(ir, name)
        if isinstance(cls, type) and issubclass(cls, (ir.Type, ir.Attribute)) and not hasattr(cls, "isinstance"):
            cls.isinstance = staticmethod(lambda value, cls=cls: isinstance(value, cls))


_restore_isinstance()

from iree.turbine import aot  # noqa: E402  (the repair above must come first)
from iree.turbine.aot.compiled_module import ExportTargetDef  # noqa: E402
from iree.turbine.aot.tensor_traits import ExternalTensorTrait  # noqa: E402

__all__ = ["ExportTargetDef", "ExternalTensorTrait", "aot"]
