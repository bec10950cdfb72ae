"""Models that need no checkpoint: two small ones with every feature, and the two true sizes."""

from predecode.export.config import ModelConfig
from predecode.export.rope_parameters import RopeParameters
from predecode.pipelines.errors import PredecodeError

TINY = ModelConfig(
    model_type="glm_moe_dsa",
    vocab_size=512,
    hidden_size=256,
    intermediate_size=256,
    moe_intermediate_size=256,
    num_hidden_layers=4,
    num_attention_heads=4,
    q_lora_rank=128,
    kv_lora_rank=128,
    qk_nope_head_dim=64,
    qk_rope_head_dim=64,
    v_head_dim=128,
    index_n_heads=16,
    index_head_dim=128,
    index_topk=64,
    n_routed_experts=16,
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
    mlp_layer_types=("dense", "sparse", "sparse", "sparse"),
    indexer_types=("full", "full", "shared", "full"),
)

TINY_DEEPSEEK = ModelConfig(
    model_type="deepseek_v32",
    vocab_size=512,
    hidden_size=256,
    intermediate_size=512,
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
    n_routed_experts=16,
    n_shared_experts=1,
    num_experts_per_tok=2,
    n_group=4,
    topk_group=2,
    norm_topk_prob=True,
    routed_scaling_factor=2.5,
    rms_norm_eps=1e-6,
    latent_norm_eps=1e-6,
    max_position_embeddings=1024,
    rope_parameters=RopeParameters(
        "yarn", 1e4, factor=8.0, original_max_position_embeddings=128, mscale=1.0, mscale_all_dim=1.0
    ),
    indexer_rope_interleave=False,
    mlp_layer_types=("dense", "sparse", "sparse"),
    indexer_types=("full", "full", "full"),
)

GLM_5_1 = ModelConfig(
    model_type="glm_moe_dsa",
    vocab_size=154880,
    hidden_size=6144,
    intermediate_size=12288,
    moe_intermediate_size=2048,
    num_hidden_layers=78,
    num_attention_heads=64,
    q_lora_rank=2048,
    kv_lora_rank=512,
    qk_nope_head_dim=192,
    qk_rope_head_dim=64,
    v_head_dim=256,
    index_n_heads=32,
    index_head_dim=128,
    index_topk=2048,
    n_routed_experts=256,
    n_shared_experts=1,
    num_experts_per_tok=8,
    n_group=1,
    topk_group=1,
    norm_topk_prob=True,
    routed_scaling_factor=2.5,
    rms_norm_eps=1e-5,
    latent_norm_eps=1e-5,
    max_position_embeddings=202752,
    rope_parameters=RopeParameters("default", 1e6),
    indexer_rope_interleave=True,
    mlp_layer_types=("dense",) * 3 + ("sparse",) * 75,
    indexer_types=("full",) * 78,
)

DEEPSEEK_V3_2 = ModelConfig(
    model_type="deepseek_v32",
    vocab_size=129280,
    hidden_size=7168,
    intermediate_size=18432,
    moe_intermediate_size=2048,
    num_hidden_layers=61,
    num_attention_heads=128,
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    index_n_heads=64,
    index_head_dim=128,
    index_topk=2048,
    n_routed_experts=256,
    n_shared_experts=1,
    num_experts_per_tok=8,
    n_group=8,
    topk_group=4,
    norm_topk_prob=True,
    routed_scaling_factor=2.5,
    rms_norm_eps=1e-6,
    latent_norm_eps=1e-6,
    max_position_embeddings=163840,
    rope_parameters=RopeParameters(
        "yarn", 1e4, factor=40.0, original_max_position_embeddings=4096, mscale=1.0, mscale_all_dim=1.0
    ),
    indexer_rope_interleave=False,
    mlp_layer_types=("dense",) * 3 + ("sparse",) * 58,
    indexer_types=("full",) * 61,
)

PRESETS = {
    "tiny": TINY,
    "tiny-deepseek": TINY_DEEPSEEK,
    "glm-5.1": GLM_5_1,
    "deepseek-v3.2": DEEPSEEK_V3_2,
}


def preset(name: str) -> ModelConfig:
    """The preset called ``name``."""
    if name not in PRESETS:
        raise PredecodeError(f"unknown preset {name!r}: expected one of {', '.join(PRESETS)}, or a checkpoint folder")
    return PRESETS[name]
