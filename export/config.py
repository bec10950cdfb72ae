"""What a DSA model is made of: the fields of Hugging Face's `GlmMoeDsaConfig` and `DeepseekV32Config`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from predecode.custom_kernels.layouts import GROUP, INDEXER_HEAD_DIM, TILE
from predecode.export.rope_parameters import RopeParameters, rope_parameters_from_json
from predecode.pipelines.errors import PredecodeError

ROPE_DIM = 64
"""Rotated dimensions of a head, in the main attention and in the indexer alike."""

ARCHITECTURES = {"glm_moe_dsa": "GlmMoeDsaForCausalLM", "deepseek_v32": "DeepseekV32ForCausalLM"}

# Keys of config.json that would change the computation, with the only value that is implemented.
_ONLY_VALUES = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "moe_layer_freq": 1,
    "rope_interleave": True,
}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Sizes and constants of one model; field names are Hugging Face's.

    ``latent_norm_eps`` is the epsilon of the q_a and kv_a norms (not a Hugging Face field: serving stacks use
    ``rms_norm_eps`` there, transformers always 1e-6). ``mlp_layer_types`` holds "dense" or "sparse" per layer,
    ``indexer_types`` "full" (the layer has an indexer) or "shared" (it reuses the selection of the last full
    layer).
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
                f"unsupported model_type {self.model_type!r}: expected one of {', '.join(sorted(ARCHITECTURES))}"
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
            raise PredecodeError(
                f"layers {list(layers)}: the model has layers 0 to {self.num_hidden_layers - 1}"
            )

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
        model_type = _architecture(data)
        for key, only in _ONLY_VALUES.items():
            if data.get(key, only) != only:
                raise PredecodeError(f"config: {key} = {data[key]!r} is not supported, only {only!r}")
        _check_quantization(data.get("quantization_config"))
        layer_count = _integer(data, "num_hidden_layers")
        heads = _integer(data, "num_attention_heads")
        if data.get("num_key_value_heads", heads) != heads:
            raise PredecodeError(
                f"config: num_key_value_heads = {data['num_key_value_heads']} is not supported: "
                f"MLA has as many as attention heads ({heads})"
            )
        epsilon = _number(data, "rms_norm_eps")
        return cls(
            model_type=model_type,
            **{name: _integer(data, name) for name in _INTEGER_FIELDS},
            num_hidden_layers=layer_count,
            num_attention_heads=heads,
            norm_topk_prob=_boolean(data, "norm_topk_prob"),
            routed_scaling_factor=_number(data, "routed_scaling_factor"),
            rms_norm_eps=epsilon,
            latent_norm_eps=_number(data, "latent_norm_eps") if "latent_norm_eps" in data else epsilon,
            rope_parameters=rope_parameters_from_json(data),
            indexer_rope_interleave=(
                _boolean(data, "indexer_rope_interleave")
                if "indexer_rope_interleave" in data
                else model_type == "glm_moe_dsa"
            ),
            mlp_layer_types=_mlp_layer_types(data, layer_count),
            indexer_types=_indexer_types(data, layer_count),
        )

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


_INTEGER_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "moe_intermediate_size",
    "q_lora_rank",
    "kv_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "index_n_heads",
    "index_head_dim",
    "index_topk",
    "n_routed_experts",
    "n_shared_experts",
    "num_experts_per_tok",
    "n_group",
    "topk_group",
    "max_position_embeddings",
)


def _architecture(data: Mapping[str, Any]) -> str:
    model_type = data.get("model_type")
    if model_type not in ARCHITECTURES:
        raise PredecodeError(
            f"config: model_type {model_type!r} is not supported, expected one of "
            f"{', '.join(sorted(ARCHITECTURES))}"
        )
    named = data.get("architectures") or [ARCHITECTURES[model_type]]
    if list(named) != [ARCHITECTURES[model_type]]:
        raise PredecodeError(
            f"config: architectures {list(named)} is not supported for {model_type}, "
            f"expected {ARCHITECTURES[model_type]}"
        )
    return model_type


def _check_quantization(quantization: Mapping[str, Any] | None) -> None:
    if quantization is None:
        return
    for key, only in (("quant_method", "fp8"), ("weight_block_size", [GROUP, GROUP])):
        if quantization.get(key) != only:
            raise PredecodeError(
                f"config: quantization_config.{key} = {quantization.get(key)!r} is not supported, only {only!r}"
            )
    if quantization.get("activation_scheme", "dynamic") != "dynamic":
        raise PredecodeError(
            f"config: quantization_config.activation_scheme = {quantization['activation_scheme']!r} "
            "is not supported, only 'dynamic'"
        )


def _field(data: Mapping[str, Any], name: str) -> Any:
    if data.get(name) is None:
        raise PredecodeError(f"config: field {name} is missing")
    return data[name]


def _integer(data: Mapping[str, Any], name: str) -> int:
    value = _field(data, name)
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise PredecodeError(f"config: {name} = {value!r}, expected a positive whole number")
    return value


def _number(data: Mapping[str, Any], name: str) -> float:
    value = _field(data, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise PredecodeError(f"config: {name} = {value!r}, expected a positive number")
    return float(value)


def _boolean(data: Mapping[str, Any], name: str) -> bool:
    value = _field(data, name)
    if not isinstance(value, bool):
        raise PredecodeError(f"config: {name} = {value!r}, expected true or false")
    return value


def _mlp_layer_types(data: Mapping[str, Any], layers: int) -> tuple[str, ...]:
    if data.get("mlp_layer_types") is not None:
        return tuple(data["mlp_layer_types"])
    dense = _field(data, "first_k_dense_replace")
    if not isinstance(dense, int) or isinstance(dense, bool) or dense < 0:
        raise PredecodeError(f"config: first_k_dense_replace = {dense!r}, expected a whole number")
    return tuple("dense" if layer < dense else "sparse" for layer in range(layers))


def _indexer_types(data: Mapping[str, Any], layers: int) -> tuple[str, ...]:
    """GLM-5.2's per-layer choice, given as a list, as a pattern of F and S, or as a frequency and an offset."""
    if data.get("indexer_types") is not None:
        return tuple(data["indexer_types"])
    pattern = data.get("index_topk_pattern")
    if pattern is not None:
        return tuple({"F": "full", "S": "shared"}.get(letter, letter) for letter in pattern)
    if "index_topk_freq" not in data:
        return ("full",) * layers
    frequency = max(_integer(data, "index_topk_freq"), 1)
    offset = data.get("index_skip_topk_offset", 2)
    return tuple(
        "full" if max(layer - offset + 1, 0) % frequency == 0 else "shared" for layer in range(layers)
    )


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
                f"config: {name} names {len(types)} layers, but num_hidden_layers = {config.num_hidden_layers}"
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
            f"config: num_experts_per_tok = {config.num_experts_per_tok} is more than the {reachable} experts "
            "that the chosen groups hold"
        )
