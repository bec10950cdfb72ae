"""Small models, random checkpoints of them in Hugging Face's layout, and what each parameter must hold."""

from dataclasses import replace

import numpy as np
import torch

from predecode.export.config import ModelConfig
from predecode.export.rope_parameters import RopeParameters

GLM = ModelConfig(
    model_type="glm_moe_dsa",
    vocab_size=64,
    hidden_size=256,
    intermediate_size=256,
    moe_intermediate_size=256,
    num_hidden_layers=3,
    num_attention_heads=4,
    q_lora_rank=128,
    kv_lora_rank=128,
    qk_nope_head_dim=64,
    qk_rope_head_dim=64,
    v_head_dim=128,
    index_n_heads=16,
    index_head_dim=128,
    index_topk=64,
    n_routed_experts=4,
    n_shared_experts=1,
    num_experts_per_tok=2,
    n_group=1,
    topk_group=1,
    norm_topk_prob=True,
    routed_scaling_factor=2.5,
    rms_norm_eps=1e-5,
    latent_norm_eps=1e-5,
    max_position_embeddings=1024,
    rope_parameters=RopeParameters("default", 1e6),
    indexer_rope_interleave=True,
    mlp_layer_types=("dense", "sparse", "sparse"),
    indexer_types=("full", "full", "shared"),
)
DEEPSEEK = replace(
    GLM,
    model_type="deepseek_v32",
    intermediate_size=512,
    num_hidden_layers=2,
    qk_nope_head_dim=128,
    n_shared_experts=2,
    n_group=2,
    indexer_rope_interleave=False,
    mlp_layer_types=("dense", "sparse"),
    indexer_types=("full", "full"),
)
TWO_LAYERS = replace(GLM, num_hidden_layers=2, mlp_layer_types=("dense", "sparse"), indexer_types=("full", "full"))


def linear_shapes(config: ModelConfig, layer: int) -> dict[str, tuple[int, int]]:
    """Shapes of a layer's linear weights by name within the layer."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    shapes = {
        "self_attn.q_a_proj": (config.q_lora_rank, hidden),
        "self_attn.q_b_proj": (
            heads * (config.qk_nope_head_dim + config.qk_rope_head_dim),
            config.q_lora_rank,
        ),
        "self_attn.kv_a_proj_with_mqa": (config.kv_lora_rank + config.qk_rope_head_dim, hidden),
        "self_attn.kv_b_proj": (heads * (config.qk_nope_head_dim + config.v_head_dim), config.kv_lora_rank),
        "self_attn.o_proj": (hidden, heads * config.v_head_dim),
    }
    if config.indexer_types[layer] == "full":
        shapes["self_attn.indexer.wq_b"] = (config.index_n_heads * config.index_head_dim, config.q_lora_rank)
        shapes["self_attn.indexer.wk"] = (config.index_head_dim, hidden)
    if config.mlp_layer_types[layer] == "dense":
        mlps = {"mlp.": config.intermediate_size}
    else:
        mlps = {f"mlp.experts.{e}.": config.moe_intermediate_size for e in range(config.n_routed_experts)}
        mlps["mlp.shared_experts."] = config.moe_intermediate_size * config.n_shared_experts
    for prefix, inner in mlps.items():
        shapes |= {f"{prefix}gate_proj": (inner, hidden), f"{prefix}up_proj": (inner, hidden)}
        shapes[f"{prefix}down_proj"] = (hidden, inner)
    return shapes


def plain_shapes(config: ModelConfig, layer: int) -> dict[str, tuple[int, ...]]:
    """Shapes of a layer's other tensors by name within the layer."""
    hidden = config.hidden_size
    shapes = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.q_a_layernorm.weight": (config.q_lora_rank,),
        "self_attn.kv_a_layernorm.weight": (config.kv_lora_rank,),
    }
    if config.indexer_types[layer] == "full":
        shapes["self_attn.indexer.k_norm.weight"] = shapes["self_attn.indexer.k_norm.bias"] = (128,)
        shapes["self_attn.indexer.weights_proj.weight"] = (config.index_n_heads, hidden)
    if config.mlp_layer_types[layer] == "sparse":
        shapes["mlp.gate.weight"] = (config.n_routed_experts, hidden)
        shapes["mlp.gate.e_score_correction_bias"] = (config.n_routed_experts,)
    return shapes


def random_checkpoint(config: ModelConfig, linear_dtype: torch.dtype, seed: int = 0) -> dict[str, torch.Tensor]:
    """Every tensor of the model; FP8 linears use all finite codes, -0 among them, and random scales."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    tensors = {
        "model.embed_tokens.weight": normal(config.vocab_size, config.hidden_size).bfloat16(),
        "model.norm.weight": normal(config.hidden_size).bfloat16(),
        "lm_head.weight": normal(config.vocab_size, config.hidden_size).bfloat16(),
    }
    for layer in range(config.num_hidden_layers):
        for name, shape in plain_shapes(config, layer).items():
            dtype = torch.float32 if name.endswith("bias") else torch.bfloat16
            tensors[f"model.layers.{layer}.{name}"] = normal(*shape).to(dtype)
        for name, (rows, columns) in linear_shapes(config, layer).items():
            full = f"model.layers.{layer}.{name}.weight"
            if linear_dtype != torch.float8_e4m3fn:
                tensors[full] = normal(rows, columns).to(linear_dtype)
                continue
            codes = torch.randint(0, 254, (rows, columns), generator=generator, dtype=torch.uint8)
            codes += (codes >= 127).to(torch.uint8)  # leaves out 0x7F; 0xFF cannot occur
            tensors[full] = codes.view(torch.float8_e4m3fn)
            blocks = (-(-rows // 128), -(-columns // 128))
            tensors[f"{full}_scale_inv"] = torch.rand(blocks, generator=generator) + 0.5
    return tensors


def dense(tensors: dict[str, torch.Tensor], name: str) -> np.ndarray:
    """float64 [N, K]: the numbers that a checkpoint's linear weight stands for."""
    weight = tensors[name].float().double().numpy()
    scales = tensors.get(f"{name}_scale_inv")
    if scales is None:
        return weight
    rows, columns = np.indices(weight.shape)
    return weight * scales.double().numpy()[rows // 128, columns // 128]


def stored(values: torch.Tensor, scales: torch.Tensor, rows: int, columns: int, tiled: bool) -> np.ndarray:
    """float64 [rows, columns]: the numbers that a parameter's values and scales stand for."""
    n, k = np.indices((rows, columns))
    offset = n // 16 * 16 * columns + k // 16 * 256 + n % 16 * 16 + k % 16 if tiled else n * columns + k
    flat = values.reshape(-1).float().double().numpy()
    return flat[offset] * scales.double().numpy()[n // 128, k // 128]


def expected_linears(
    config: ModelConfig, tensors: dict[str, torch.Tensor], layer: int, ranks: int, rank: int
) -> dict[str, list[np.ndarray]]:
    """float64 matrices of each linear parameter of one rank, one per expert, by name within the layer."""

    def whole(name: str) -> np.ndarray:
        return dense(tensors, f"model.layers.{layer}.{name}.weight")

    def rows(matrix: np.ndarray) -> np.ndarray:
        return np.split(matrix, ranks, axis=0)[rank]

    def columns(matrix: np.ndarray) -> np.ndarray:
        return np.split(matrix, ranks, axis=1)[rank]

    def gate_up(prefix: str) -> np.ndarray:
        return np.concatenate([rows(whole(f"{prefix}gate_proj")), rows(whole(f"{prefix}up_proj"))])

    attention = "self_attn."
    expected = {
        "attention.qkv_a": [np.concatenate([whole(f"{attention}q_a_proj"), whole(f"{attention}kv_a_proj_with_mqa")])],
        "attention.q_b": [rows(whole(f"{attention}q_b_proj"))],
        "attention.kv_b": [rows(whole(f"{attention}kv_b_proj"))],
        "attention.o_proj": [columns(whole(f"{attention}o_proj"))],
    }
    if config.indexer_types[layer] == "full":
        expected["indexer.wq_b"] = [whole(f"{attention}indexer.wq_b")]
        expected["indexer.wk"] = [whole(f"{attention}indexer.wk")]
    if config.mlp_layer_types[layer] == "dense":
        return expected | {"mlp.gate_up": [gate_up("mlp.")], "mlp.down": [columns(whole("mlp.down_proj"))]}
    experts = [f"mlp.experts.{expert}." for expert in range(config.n_routed_experts)]
    ups = [gate_up(prefix) for prefix in experts]
    downs = [columns(whole(f"{prefix}down_proj")) for prefix in experts]
    shared = [whole(f"mlp.shared_experts.{name}") for name in ("gate_proj", "up_proj", "down_proj")]
    count = config.n_shared_experts
    for gate, up, down in zip(
        np.split(shared[0], count), np.split(shared[1], count), np.split(shared[2], count, 1), strict=True
    ):
        ups.append(np.concatenate([rows(gate), rows(up)]))
        downs.append(columns(down))
    return expected | {"mlp.experts.gate_up": ups, "mlp.experts.down": downs}


def wrong_linears(
    config: ModelConfig,
    tensors: dict[str, torch.Tensor],
    state: dict[str, torch.Tensor],
    layers: range,
    ranks: int = 1,
    rank: int = 0,
    relative: float = 0.0,
) -> list[str]:
    """Names of the linear parameters in ``state`` that are off by more than ``relative``."""
    wrong = []
    for layer in layers:
        for name, matrices in expected_linears(config, tensors, layer, ranks, rank).items():
            values, scales = (state[f"layers.{layer}.{name}.{part}"] for part in ("values", "scales"))
            experts = len(matrices) if "experts" in name else 1
            size = matrices[0].size
            for expert, matrix in enumerate(matrices):
                got = stored(
                    values.reshape(-1)[expert * size : (expert + 1) * size],
                    scales.reshape(experts, *scales.shape[-2:])[expert],
                    *matrix.shape,
                    tiled=not name.endswith("kv_b"),
                )
                if not np.abs(got - matrix).max() <= relative * np.abs(matrix).max():
                    wrong.append(f"layers.{layer}.{name}[{expert}]")
    return wrong
