"""What a DSA model is made of: the fields of Hugging Face's `GlmMoeDsaConfig` and `DeepseekV32Config`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from predecode.custom_kernels.layouts import GROUP, INDEXER_HEAD_DIM, TILE
from predecode.export.config_json import ARCHITECTURES, config_fields
from predecode.export.rope_parameters import RopeParameters
from predecode.pipelines.errors import PredecodeError

ROPE_DIM = 64
"""Rotated dimensions of a head, in the main attention and in the indexer alike."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes and constants of one model; field names are Hugging Face's.

    ``latent_norm_eps`` is the epsilon of the q_a and kv_a norms (not a Hugging Face field: serving stacks use
    ``rms_norm_eps`` there, transformers always 1e-6). ``mlp_layer_types`` holds "dense" or "sparse" per
    layer, ``indexer_types`` "full" (the layer has an indexer) or "shared" (it reuses the selection of the
    last full layer).
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    q_lora_rank: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    index_n_heads: int
    index_head_dim: int
    index_topk: int
    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    n_group: int
    topk_group: int
    norm_topk_prob: bool
    routed_scaling_factor: float
    rms_norm_eps: float
    latent_norm_eps: float
    max_position_embeddings: int
    rope_parameters: RopeParameters
    indexer_rope_interleave: bool
    mlp_layer_types: tuple[str, ...]
    indexer_types: tuple[str, ...]

    def __post_init__(self):
        if self.model_type not in ARCHITECTURES:
            raise PredecodeError(
                f"model_type {self.model_type!r} is not supported: expected one of {', '.join(sorted(ARCHITECTURES))}"
            )
        _check_sizes(self)
        _check_layers(self)
        _check_experts(self)

    @property
    def qk_head_dim(self) -> int:
        """Elements of one query head before absorption."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def latent_dim(self) -> int:
        """Elements of one token in the MLA cache: latent and rotated key."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def qkv_a_dim(self) -> int:
        """Rows of the fused qkv_a projection: q_a, latent, rotated key."""
        return self.q_lora_rank + self.latent_dim

    @property
    def softmax_scale(self) -> float:
        """Attention scale: ``qk_head_dim ** -0.5``, times the square of yarn's magnitude correction."""
        return self.qk_head_dim**-0.5 * self.rope_parameters.attention_magnitude**2

    @property
    def indexer_rope_layout(self) -> str:
        """How the indexer pairs the rotated dimensions: "interleaved" or "halves"."""
        return "interleaved" if self.indexer_rope_interleave else "halves"

    def is_sparse(self, layer: int) -> bool:
        """True where ``layer`` has routed experts instead of a dense MLP."""
        return self.mlp_layer_types[layer] == "sparse"

    def has_indexer(self, layer: int) -> bool:
        """True where ``layer`` selects its own tokens."""
        return self.indexer_types[layer] == "full"

    def require_layers(self, layers: tuple[int, ...]) -> None:
        """Refuse an empty, unordered or out-of-range choice of layers."""
        if not layers or list(layers) != sorted(set(layers)):
            raise PredecodeError(f"layers {list(layers)}: expected one or more layer numbers in ascending order")
        if layers[0] < 0 or layers[-1] >= self.num_hidden_layers:
            raise PredecodeError(f"layers {list(layers)}: the model has layers 0 to {self.num_hidden_layers - 1}")

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `from_json` reads back to an equal config."""
        fields = asdict(self)
        fields["rope_parameters"] = self.rope_parameters.to_json()
        return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ModelConfig":
        """The config in a parsed config.json; keys that do not concern the computation are ignored.

        Raises `PredecodeError` naming the architecture, the missing field or the unsupported value.
        """
        return cls(**config_fields(data))

    @classmethod
    def from_folder(cls, folder: Path) -> "ModelConfig":
        """The config of a checkpoint folder (its config.json)."""
        path = Path(folder) / "config.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise PredecodeError(f"{folder} is no checkpoint folder: it has no config.json") from None
        except (OSError, ValueError) as error:
            raise PredecodeError(f"{path} cannot be read: {error}") from None
        if not isinstance(data, dict):
            raise PredecodeError(f"{path} holds a {type(data).__name__}, expected an object")
        return cls.from_json(data)


def _check_sizes(config: ModelConfig) -> None:
    if config.qk_rope_head_dim != ROPE_DIM:
        raise PredecodeError(f"config: qk_rope_head_dim = {config.qk_rope_head_dim} is not supported, only {ROPE_DIM}")
    if config.index_head_dim != INDEXER_HEAD_DIM:
        raise PredecodeError(
            f"config: index_head_dim = {config.index_head_dim} is not supported, only {INDEXER_HEAD_DIM}"
        )
    multiples = {
        GROUP: (
            "hidden_size",
            "intermediate_size",
            "moe_intermediate_size",
            "q_lora_rank",
            "kv_lora_rank",
            "v_head_dim",
        ),
        TILE: ("index_n_heads", "qk_nope_head_dim"),
    }
    for multiple, names in multiples.items():
        for name in names:
            value = getattr(config, name)
            if value <= 0 or value % multiple:
                raise PredecodeError(f"config: {name} = {value} is not supported, it must be a multiple of {multiple}")


def _check_layers(config: ModelConfig) -> None:
    for name, allowed in (("mlp_layer_types", ("dense", "sparse")), ("indexer_types", ("full", "shared"))):
        types = getattr(config, name)
        if len(types) != config.num_hidden_layers:
            raise PredecodeError(
                f"config: {name} names {len(types)} layers, but num_hidden_layers is {config.num_hidden_layers}"
            )
        unknown = sorted({str(kind) for kind in types} - set(allowed))
        if unknown:
            raise PredecodeError(f"config: {name} holds {unknown[0]!r}, expected {' or '.join(allowed)}")
    if config.indexer_types[0] != "full":
        raise PredecodeError("config: indexer_types[0] is 'shared', but no layer before it selects tokens")


def _check_experts(config: ModelConfig) -> None:
    experts, groups = config.n_routed_experts, config.n_group
    if experts % groups:
        raise PredecodeError(f"config: n_routed_experts = {experts} does not divide into n_group = {groups}")
    if groups > 1 and experts // groups < 2:
        raise PredecodeError(f"config: n_group = {groups} leaves fewer than two of {experts} experts in a group")
    if config.topk_group > groups:
        raise PredecodeError(f"config: topk_group = {config.topk_group} is more than n_group = {groups}")
    reachable = config.topk_group * (experts // groups)
    if config.num_experts_per_tok > reachable:
        raise PredecodeError(
            f"config: num_experts_per_tok = {config.num_experts_per_tok} is more than the {reachable} "
            "experts that the chosen groups hold"
        )
