"""A model with seeded weights is stable against rounding and sensitive to its context, like a trained one."""

import pytest
import torch

from predecode.custom_kernels.formats import E4M3FN, FLOAT32
from predecode.export.presets import TINY, TINY_DEEPSEEK
from predecode.export.weights import SeededWeights
from tests.export.decoding import EagerDecoder, prefill

TOKENS = torch.randint(0, 512, (100,), generator=torch.Generator().manual_seed(0)).tolist()


class Perturbed(SeededWeights):
    """Scales off by about 1e-3, which changes which way roundings go."""

    def read(self, name, region):
        values = super().read(name, region)
        if not name.endswith("_scale_inv"):
            return values
        noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(len(name)))
        return values * (1 + 1e-3 * noise)


def logits(source, config, element_format, tokens):
    decoder = EagerDecoder(config, source, element_format)
    return prefill(decoder, decoder.sequence(len(tokens)), tokens, len(tokens)).double()


@pytest.mark.parametrize("config", [TINY, TINY_DEEPSEEK], ids=lambda config: config.model_type)
def test_rounding_is_not_amplified_and_context_matters(config):
    source = SeededWeights(config, 0)
    given = logits(source, config, E4M3FN, TOKENS)
    perturbed = logits(Perturbed(config, 0), config, E4M3FN, TOKENS)
    unquantised = logits(source, config, FLOAT32, TOKENS)
    other_context = logits(source, config, E4M3FN, [*TOKENS[32:64], *TOKENS[32:]])

    def cosines(other):
        return torch.nn.functional.cosine_similarity(given, other)[32:]

    assert cosines(perturbed).min() > 0.98 and cosines(perturbed).mean() > 0.997
    assert cosines(unquantised).min() > 0.97 and cosines(unquantised).mean() > 0.997
    assert cosines(other_context).mean() < 0.98
