"""With quantisation off, the model is the one in transformers."""

import dataclasses

import pytest
import torch
import transformers

from predecode.custom_kernels.formats import FLOAT32
from predecode.export.config import ModelConfig
from predecode.export.presets import TINY, TINY_DEEPSEEK
from predecode.export.weights import DictSource
from tests.export.decoding import EagerDecoder, prefill

CLASSES = {
    "glm_moe_dsa": (transformers.GlmMoeDsaConfig, transformers.GlmMoeDsaForCausalLM),
    "deepseek_v32": (transformers.DeepseekV32Config, transformers.DeepseekV32ForCausalLM),
}
# transformers normalises q_a and kv_a with 1e-6 whatever the config says.
CONFIGS = {
    "glm": dataclasses.replace(TINY, latent_norm_eps=1e-6),
    "deepseek": dataclasses.replace(TINY_DEEPSEEK, latent_norm_eps=1e-6),
    "glm, two shared experts, no renormalisation": dataclasses.replace(
        TINY, latent_norm_eps=1e-6, n_shared_experts=2, norm_topk_prob=False, num_experts_per_tok=3
    ),
}
PROMPT, DECODED = 150, 5


def theirs(config: ModelConfig, seed: int):
    """A transformers model of ``config`` in float32 with random weights, none of them neutral."""
    config_class, model_class = CLASSES[config.model_type]
    fields = config.to_json()
    rope = {key: value for key, value in fields.pop("rope_parameters").items() if value}
    if rope["rope_type"] == "default":
        rope = {"rope_type": "default", "rope_theta": rope["rope_theta"]}
    for ours_alone in ("model_type", "latent_norm_eps", "indexer_rope_interleave"):
        fields.pop(ours_alone)
    if config.model_type == "deepseek_v32":
        fields.pop("indexer_types")
    heads = config.num_attention_heads
    config = config_class(**fields, num_key_value_heads=heads, rope_parameters=rope, attn_implementation="eager")
    model = model_class(config).eval().float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            noise = torch.randn(tensor.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                tensor.copy_(1 + 0.1 * noise)
            elif tensor.dim() == 1:
                tensor.copy_(0.1 * noise)
            elif "embed" in name:
                tensor.copy_(noise)
            else:
                tensor.copy_(noise * tensor.shape[-1] ** -0.5)
    return model


def their_logits(model, tokens: list[int]) -> torch.Tensor:
    """A prompt in one go, then token by token with the cache: logits of every token."""
    with torch.no_grad():
        out = model(torch.tensor([tokens[:PROMPT]]), use_cache=True)
        logits = [out.logits[0]]
        for token in tokens[PROMPT:]:
            out = model(torch.tensor([[token]]), past_key_values=out.past_key_values, use_cache=True)
            logits.append(out.logits[0])
    return torch.cat(logits)


def worst_row(given: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest error of a row relative to the row's largest value."""
    return ((given - expected).abs().amax(-1) / expected.abs().amax(-1)).max().item()


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal(name):
    config = CONFIGS[name]
    # With this seed no last selected token leads the first rejected one by less than ten times the rounding.
    model = theirs(config, seed=2)
    tokens = torch.randint(config.vocab_size, (PROMPT + DECODED,), generator=torch.Generator().manual_seed(2)).tolist()
    expected = their_logits(model, tokens)
    decoder = EagerDecoder(config, DictSource(model.state_dict()), FLOAT32)
    sequence = decoder.sequence(len(tokens))
    given = [prefill(decoder, sequence, tokens[:PROMPT], 64)]
    given += [decoder.step([(sequence, token)]) for token in tokens[PROMPT:]]
    assert worst_row(torch.cat(given), expected) < 1e-4
    assert expected.abs().amax(-1).min() > 0.1


DIFFERENCES = {
    "softmax scale": lambda c: dataclasses.replace(
        c, rope_parameters=dataclasses.replace(c.rope_parameters, mscale_all_dim=0.5, mscale=0.5)
    ),
    "rope theta": lambda c: dataclasses.replace(
        c, rope_parameters=dataclasses.replace(c.rope_parameters, rope_theta=2e4)
    ),
    "indexer rope layout": lambda c: dataclasses.replace(c, indexer_rope_interleave=True),
    "routed scaling": lambda c: dataclasses.replace(c, routed_scaling_factor=2.4),
    "expert groups": lambda c: dataclasses.replace(c, n_group=1, topk_group=1),
    "fewer selected tokens": lambda c: dataclasses.replace(c, index_topk=48),
    "norm epsilon": lambda c: dataclasses.replace(c, rms_norm_eps=1e-2),
    "latent norm epsilon": lambda c: dataclasses.replace(c, latent_norm_eps=1e-2),
}


@pytest.fixture(scope="module")
def deepseek():
    config = CONFIGS["deepseek"]
    model = theirs(config, seed=1)
    tokens = list(range(100, 196))
    with torch.no_grad():
        return config, DictSource(model.state_dict()), tokens, model(torch.tensor([tokens])).logits[0]


def test_the_unchanged_model_passes_where_each_difference_is_noticed(deepseek):
    config, source, tokens, expected = deepseek
    decoder = EagerDecoder(config, source, FLOAT32)
    assert worst_row(prefill(decoder, decoder.sequence(len(tokens)), tokens, 96), expected) < 1e-4


@pytest.mark.parametrize("name", DIFFERENCES)
def test_each_difference_is_noticed(name, deepseek):
    config, source, tokens, expected = deepseek
    decoder = EagerDecoder(DIFFERENCES[name](config), source, FLOAT32)
    assert worst_row(prefill(decoder, decoder.sequence(len(tokens)), tokens, 96), expected) > 1e-3
