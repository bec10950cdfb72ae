"""What the eager model must keep to, whatever its weights."""

import pytest
import torch

from predecode.custom_kernels.formats import E4M3FN, E4M3FNUZ, ELEMENT_FORMATS, FLOAT32
from predecode.export.presets import TINY, TINY_DEEPSEEK
from predecode.export.weights import SeededWeights
from tests.export.decoding import EagerDecoder, prefill

CONFIGS = {"tiny": TINY, "tiny-deepseek": TINY_DEEPSEEK}
both = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def decoder(config, element_format, **options) -> EagerDecoder:
    return EagerDecoder(config, SeededWeights(config, 3), element_format, **options)


def tokens(count: int, seed: int = 7) -> list[int]:
    return torch.randint(512, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def worst_cosine(given: torch.Tensor, expected: torch.Tensor) -> float:
    assert torch.isfinite(given).all()
    return torch.nn.functional.cosine_similarity(given.double(), expected.double()).min().item()


def worst_row(given: torch.Tensor, expected: torch.Tensor) -> float:
    assert torch.isfinite(given).all()
    return ((given - expected).abs().amax(-1) / expected.abs().amax(-1)).max().item()


@both
@pytest.mark.parametrize("element_format", [E4M3FN, E4M3FNUZ], ids=lambda f: f.name)
def test_fp8_stays_close_to_the_unquantised_model(config, element_format):
    """Contexts below the selection's size, where both attend to the same tokens."""
    results = []
    for chosen in (element_format, FLOAT32):
        model = decoder(config, chosen)
        results.append(prefill(model, model.sequence(64), tokens(64), 64))
    assert worst_cosine(*results) >= 0.99


@both
@pytest.mark.parametrize("element_format", ELEMENT_FORMATS.values(), ids=ELEMENT_FORMATS)
def test_chunks_equal_single_tokens(config, element_format):
    """63, 64, 65 tokens: the edges of a page; 90: beyond the selection's size of 64."""
    text = tokens(90)
    chunked, single = decoder(config, element_format), decoder(config, element_format)
    by_chunk = prefill(chunked, chunked.sequence(90), text, 65)
    by_token = prefill(single, single.sequence(90), text, 1)
    assert worst_row(by_chunk, by_token) < (1e-4 if element_format is FLOAT32 else 2e-2)


@both
def test_rows_of_several_sequences_do_not_disturb_each_other(config):
    texts = [tokens(70, 1), tokens(3, 2), tokens(66, 3)]
    together = decoder(config, FLOAT32)
    sequences = [together.sequence(len(text) + 1) for text in texts]
    for sequence, text in zip(sequences, texts, strict=True):
        prefill(together, sequence, text, 64)
    logits = together.step([(sequence, 5) for sequence in reversed(sequences)])
    for row, text in zip(reversed(range(3)), texts, strict=True):
        alone = decoder(config, FLOAT32)
        expected = prefill(alone, alone.sequence(len(text) + 1), [*text, 5], 64)[-1:]
        assert worst_row(logits[row : row + 1], expected) < 1e-4


@both
@pytest.mark.parametrize("element_format", ELEMENT_FORMATS.values(), ids=ELEMENT_FORMATS)
def test_padding_rows_touch_nothing(config, element_format):
    model = decoder(config, element_format)
    sequence = model.sequence(20)
    prefill(model, sequence, tokens(10), 10)
    before = {name: cache.clone() for name, cache in model.ranks[0].caches.items()}
    model.step([None, None])
    assert all(torch.equal(cache, before[name]) for name, cache in model.ranks[0].caches.items())
    plain = decoder(config, element_format)
    other = plain.sequence(20)
    prefill(plain, other, tokens(10), 10)
    padded, alone = model.step([None, (sequence, 9), None]), plain.step([(other, 9)])
    assert worst_row(padded[1:2], alone) < (1e-4 if element_format is FLOAT32 else 2e-2)
    written = {name: cache.clone() for name, cache in model.ranks[0].caches.items()}
    for name, cache in plain.ranks[0].caches.items():
        assert torch.equal(written[name], cache), name
        assert not torch.equal(written[name], before[name])


@both
@pytest.mark.parametrize("element_format", ELEMENT_FORMATS.values(), ids=ELEMENT_FORMATS)
def test_two_ranks_sum_to_one(config, element_format):
    whole, split = decoder(config, element_format), decoder(config, element_format, ranks=2, reduce="external")
    results = [prefill(model, model.sequence(80), tokens(80), 40) for model in (whole, split)]
    if element_format is FLOAT32:
        assert worst_row(results[1], results[0]) < 1e-4
    else:
        assert worst_cosine(results[1], results[0]) >= 0.99
    mine, other = (rank.caches for rank in split.ranks)
    assert all(torch.equal(mine[name], other[name]) for name in mine)


@both
def test_a_missing_rank_is_noticed(config):
    whole = decoder(config, FLOAT32)
    split = decoder(config, FLOAT32, ranks=2, reduce="external")
    del split.ranks[1:]
    expected = prefill(whole, whole.sequence(8), tokens(8), 8)[:, : config.vocab_size // 2]
    assert worst_row(prefill(split, split.sequence(8), tokens(8), 8), expected) > 1e-2


@both
def test_cutting_at_the_reductions_changes_no_bit(config):
    whole, cut = decoder(config, E4M3FN), decoder(config, E4M3FN, reduce="external")
    results = [prefill(model, model.sequence(80), tokens(80), 40) for model in (whole, cut)]
    assert torch.equal(*results)


@both
def test_chosen_layers_equal_the_step_that_goes_through_them(config):
    """Hidden states of layer 0, then of the others, lead to the whole step's logits."""
    geometry = {"max_context": 128, "pages": 4}
    count = config.num_hidden_layers
    first = decoder(config, E4M3FN, layers=(0,), **geometry)
    rest = decoder(config, E4M3FN, layers=tuple(range(1, count)), **geometry)
    whole = decoder(config, E4M3FN, **geometry)
    step = whole.ranks[0].segments[0]
    text = tokens(5)
    logits = prefill(whole, whole.sequence(5), text, 5)
    rows = first.rows([(sequence, token) for sequence in [first.sequence(5)] for token in text])
    hidden = torch.nn.functional.embedding(rows["tokens"], step.embedding.weight)
    state = rest.run(first.run(rows | {"hidden": hidden}))
    with torch.no_grad():
        assert torch.equal(step.output(step.final_norm(state["hidden"], state["residual"])), logits)


@both
def test_each_row_depends_on_its_context(config):
    """A model whose attention did nothing would pass the comparisons above."""
    model, other = decoder(config, FLOAT32), decoder(config, FLOAT32)
    given = prefill(model, model.sequence(30), [*tokens(29, 1), 5], 30)[-1:]
    expected = prefill(other, other.sequence(30), [*tokens(29, 2), 5], 30)[-1:]
    assert worst_row(given, expected) > 0.05
