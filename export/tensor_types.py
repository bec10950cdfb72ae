"""Types of tensors in a traced module, as torch and as the compiler's builtin dialect write them."""

import iree.compiler.ir as ir
import torch

_DTYPES = {
    "f32": torch.float32,
    "bf16": torch.bfloat16,
    "f16": torch.float16,
    "f8E4M3FN": torch.float8_e4m3fn,
    "f8E4M3FNUZ": torch.float8_e4m3fnuz,
    "si8": torch.int8,
    "ui8": torch.uint8,
    "si32": torch.int32,
    "si64": torch.int64,
}
_BUILTIN_ELEMENTS = {"si8": "i8", "ui8": "i8", "si32": "i32", "si64": "i64"}


def meta_tensor(value: ir.Value) -> torch.Tensor:
    """A tensor without data of the shape and dtype of ``value``."""
    shape, element = _shape_and_element(value)
    return torch.empty(shape, dtype=_DTYPES[element], device="meta")


def traced_type(tensor: torch.Tensor) -> str:
    """The type of a value of the shape and dtype of ``tensor``."""
    element = next(name for name, dtype in _DTYPES.items() if dtype == tensor.dtype)
    return f"!torch.vtensor<[{','.join(map(str, tensor.shape))}],{element}>"


def builtin_type(value: ir.Value) -> str:
    """The builtin tensor type of ``value``."""
    shape, element = _shape_and_element(value)
    extents = "".join(f"{extent}x" for extent in shape)
    return f"tensor<{extents}{_BUILTIN_ELEMENTS.get(element, element)}>"


def _shape_and_element(value: ir.Value) -> tuple[tuple[int, ...], str]:
    # "!torch.vtensor<[4,8],f32>"; torch types have no Python accessors in this compiler.
    text = str(value.type)
    shape, element = text.removeprefix("!torch.vtensor<[").removesuffix(">").split("],")
    return tuple(int(extent) for extent in shape.split(",") if extent), element
