"""What an op is: a functional torch.library op, its reference in plain torch, and its kernel launch per target."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.targets import Target

LIBRARY = torch.library.Library("predecode", "DEF")
OPS: dict[str, "Op"] = {}


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an op as it stands in a traced program.

    ``arguments`` maps each schema argument to a tensor without data (shape and dtype are those traced) or to
    the Python scalar or string it was called with; ``results`` are the results' shapes and dtypes likewise.
    """

    arguments: Mapping[str, Any]
    results: tuple[torch.Tensor, ...]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]


LaunchRule = Callable[[Target, Call], Launch | None]
TouchedRule = Callable[[Call], Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Op:
    """A defined op. ``in_place`` maps a result's index to the argument whose buffer it reuses.

    ``touched`` names arguments of which a call moves only a part, with the most bytes it can move: caches, whose
    pool is larger than a step's tokens, or experts that no row is routed to. Other arguments are moved whole.
    ``reads_reduced`` tells that the first argument is what tensor-parallel ranks add up.
    """

    name: str
    reference: Callable
    fake: Callable
    in_place: Mapping[int, str] = field(default_factory=dict)
    launch: LaunchRule | None = None
    touched: TouchedRule | None = None
    reads_reduced: bool = False

    @property
    def overload(self) -> torch._ops.OpOverload:
        """``torch.ops.predecode.<name>.default``."""
        return getattr(torch.ops.predecode, self.name).default

    def launch_on(self, target: Target, call: Call) -> Launch | None:
        """The kernel launch that replaces ``call`` on ``target``, or None: the reference is compiled instead."""
        return self.launch(target, call) if self.launch else None

    def touched_bytes(self, call: Call) -> dict[str, int]:
        """Arguments that ``call`` moves only a part of, with the most bytes it can move of each."""
        rule = self.touched(call) if self.touched else {}
        return {name: min(count, call[name].nbytes) for name, count in rule.items()}


def define_op(
    schema: str,
    reference: Callable,
    fake: Callable,
    *,
    in_place: Mapping[int, str] | None = None,
    launch: LaunchRule | None = None,
    touched: TouchedRule | None = None,
    reads_reduced: bool = False,
) -> Op:
    """Define ``torch.ops.predecode.<name>`` from a schema such as ``"scale(Tensor x, float s) -> Tensor"``.

    The op is functional: ``reference`` must not write its arguments nor return them. ``fake`` gives the
    results' shapes and dtypes. ``in_place`` tells which results a kernel writes into which argument's buffer;
    a caller must not use that argument afterwards. ``touched``, ``reads_reduced``: see `Op`.
    """
    name = schema.split("(", 1)[0]
    LIBRARY.define(schema)
    LIBRARY.impl(name, reference, "CompositeExplicitAutograd")
    torch.library.register_fake(f"predecode::{name}", fake, lib=LIBRARY)
    OPS[name] = Op(name, reference, fake, dict(in_place or {}), launch, touched, reads_reduced)
    return OPS[name]
