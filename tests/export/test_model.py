"""What the eager model must keep to, whatever its weights."""

import pytest
import torch

from predecode.custom_kernels.formats import E4M3FN, E4M3FNUZ, ELEMENT_FORMATS, FLOAT32
from predecode.custom_kernels.layouts import PRESHUFFLED_PAGE
from predecode.export.presets import TINY, TINY_DEEPSEEK
from predecode.export.weights import SeededWeights
from tests.export.choices import Choices
from tests.export.decoding import EagerDecoder, prefill

CONFIGS = {"tiny": TINY, "tiny-deepseek": TINY_DEEPSEEK}
both = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
every_format = pytest.mark.parametrize("element_format", ELEMENT_FORMATS.values(), ids=ELEMENT_FORMATS)
fp8_formats = pytest.mark.parametrize("element_format", [E4M3FN, E4M3FNUZ], ids=lambda f: f.name)


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


def with_equal_choices(text, first, second, chunks=(40, 40)):
    """Logits of ``text`` from both decoders, the second one making the first one's choices."""
    choices = Choices()
    choices.record(first)
    given = prefill(first, first.sequence(len(text)), text, chunks[0])
    choices.force_on(second)
    return given, prefill(second, second.sequence(len(text)), text, chunks[1])


@both
@fp8_formats
def test_fp8_stays_close_to_the_unquantised_model(config, element_format):
    """Contexts up to and beyond the selection's size."""
    expected, given = with_equal_choices(tokens(90), decoder(config, FLOAT32), decoder(config, element_format))
    assert worst_cosine(given, expected) >= 0.99


@both
def test_the_cosine_notices_the_other_format(config):
    """The same bytes read as the other FP8 format are half or twice the value."""
    model, wrong = decoder(config, E4M3FN), decoder(config, E4M3FN)
    for name, tensor in wrong.ranks[0].segments[0].state_dict().items():
        if name.endswith("o_proj.scales"):
            tensor.mul_(2)
    expected, given = with_equal_choices(tokens(40), model, wrong)
    assert worst_cosine(given, expected) < 0.99


@both
@every_format
def test_chunks_equal_single_tokens(config, element_format):
    """70 tokens cross a page and exceed the selection's size of 64; a chunk of 65 rows ends inside a page."""
    models = decoder(config, element_format), decoder(config, element_format)
    by_token, by_chunk = with_equal_choices(tokens(70), *models, chunks=(1, 65))
    if element_format is FLOAT32:
        assert worst_row(by_chunk, by_token) < 1e-4
    else:
        assert worst_cosine(by_chunk, by_token) >= 0.99


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


def bytes_of_slot(config, element_format, name: str, slot: int) -> set[int]:
    """Byte offsets within its page that a token owns in the cache called ``name``."""
    token, itemsize = slot % 64, element_format.itemsize
    if name.endswith("latent_cache"):
        width = config.latent_dim * itemsize
        return set(range(token * width, (token + 1) * width))
    scale = PRESHUFFLED_PAGE.scale_offset(token, itemsize)
    keys = (PRESHUFFLED_PAGE.key_offset(token, dim, itemsize) for dim in range(128))
    return {start + byte for start in keys for byte in range(itemsize)} | set(range(scale, scale + 4))


@both
@every_format
def test_padding_rows_touch_nothing(config, element_format):
    model = decoder(config, element_format)
    sequence = model.sequence(20)
    prefill(model, sequence, tokens(10), 10)

    def snapshot():
        return {name: cache.clone() for name, cache in model.ranks[0].caches.items()}

    before = snapshot()
    assert torch.isfinite(model.step([None, None])).all()
    assert all(torch.equal(cache, before[name]) for name, cache in snapshot().items())
    assert torch.isfinite(model.step([None, (sequence, 9), None])).all()
    for name, cache in snapshot().items():
        page, byte = (cache != before[name]).nonzero().unbind(1)
        assert set(page.tolist()) == {sequence.pages[0]}, name
        assert set(byte.tolist()) <= bytes_of_slot(config, element_format, name, 10), name


@both
def test_padding_rows_change_no_other_row(config):
    model, plain = decoder(config, FLOAT32), decoder(config, FLOAT32)
    sequence, other = model.sequence(20), plain.sequence(20)
    prefill(model, sequence, tokens(10), 10)
    prefill(plain, other, tokens(10), 10)
    padded, alone = model.step([None, (sequence, 9), None]), plain.step([(other, 9)])
    assert worst_row(padded[1:2], alone) < 1e-4


@both
@every_format
def test_two_ranks_sum_to_one(config, element_format):
    models = decoder(config, element_format), decoder(config, element_format, ranks=2, reduce="external")
    whole, split = with_equal_choices(tokens(80), *models)
    if element_format is FLOAT32:
        assert worst_row(split, whole) < 1e-4
    else:
        assert worst_cosine(split, whole) >= 0.99
    mine, other = (rank.caches for rank in models[1].ranks)
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
