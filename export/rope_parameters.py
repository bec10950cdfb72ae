"""Parameters of the rotary embedding, as config.json gives them in its older and newer spellings."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from predecode.pipelines.errors import PredecodeError


def yarn_magnitude(factor: float, weight: float) -> float:
    """YaRN's magnitude correction ``0.1 * weight * ln(factor) + 1`` of a context stretched by ``factor``."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


@dataclass(frozen=True, slots=True)
class RopeParameters:
    """Hugging Face's ``rope_parameters``; the fields after ``rope_theta`` matter for "yarn" only.

    ``mscale`` and ``mscale_all_dim`` of 0 mean "not given".
    """

    rope_type: str
    rope_theta: float
    factor: float = 1.0
    original_max_position_embeddings: int = 0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 0.0
    mscale_all_dim: float = 0.0

    @property
    def attention_magnitude(self) -> float:
        """Multiplies the query-key products twice (DeepSeek's ``mscale_all_dim`` correction)."""
        if self.rope_type != "yarn" or not self.mscale_all_dim:
            return 1.0
        return yarn_magnitude(self.factor, self.mscale_all_dim)

    @property
    def table_magnitude(self) -> float:
        """Multiplies the cosines and sines."""
        if self.rope_type != "yarn":
            return 1.0
        if self.mscale and self.mscale_all_dim:
            return yarn_magnitude(self.factor, self.mscale) / yarn_magnitude(self.factor, self.mscale_all_dim)
        return yarn_magnitude(self.factor, 1.0)

    def to_json(self) -> dict[str, Any]:
        """The dictionary `rope_parameters_from_json` reads."""
        return asdict(self)


def rope_parameters_from_json(data: Mapping[str, Any]) -> RopeParameters:
    """From a parsed config.json: ``rope_parameters``, or the older ``rope_scaling`` beside ``rope_theta``."""
    given = data.get("rope_parameters") or data.get("rope_scaling") or {}
    if not isinstance(given, Mapping):
        raise PredecodeError(f"config: rope_parameters = {given!r}, expected an object")
    given = dict(given)
    rope_type = given.pop("rope_type", given.pop("type", "default"))
    given.pop("type", None)
    theta = given.pop("rope_theta", data.get("rope_theta"))
    if theta is None:
        raise PredecodeError("config: field rope_theta is missing")
    if rope_type not in ("default", "yarn"):
        raise PredecodeError(f"config: rope_type {rope_type!r} is not supported, only 'default' and 'yarn'")
    if given.pop("partial_rotary_factor", 1.0) != 1.0:
        raise PredecodeError("config: partial_rotary_factor other than 1 is not supported")
    if given.pop("attention_factor", None) is not None or not given.pop("truncate", True):
        raise PredecodeError("config: attention_factor and truncate = false of yarn are not supported")
    if rope_type == "default":
        return RopeParameters(rope_type, _positive("rope_theta", theta))
    if given.get("original_max_position_embeddings") is None or given.get("factor") is None:
        raise PredecodeError("config: yarn needs rope_parameters.factor and .original_max_position_embeddings")
    optional = ("beta_fast", "beta_slow", "mscale", "mscale_all_dim")
    return RopeParameters(
        rope_type,
        _positive("rope_theta", theta),
        factor=_positive("factor", given["factor"]),
        original_max_position_embeddings=int(
            _positive("original_max_position_embeddings", given["original_max_position_embeddings"])
        ),
        **{name: _positive(name, given[name]) for name in optional if given.get(name)},
    )


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise PredecodeError(f"config: {name} = {value!r}, expected a positive number")
    return float(value)
