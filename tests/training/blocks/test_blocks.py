from __future__ import annotations

import doctest

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import coterie.training.blocks
from coterie.runtime.errors import ConfigError
from coterie.training.blocks import (
    Block,
    BlockConfig,
    ConvConfig,
    ImageInput,
    InputShape,
    LinearConfig,
    LinearHead,
    MlpConfig,
    NgramBagConfig,
    Standardise,
    TextCnnConfig,
    build_block,
)

VECTOR = InputShape(dims=(5,))
IMAGE = InputShape(dims=(2, 9, 8))
TOKENS = InputShape(dims=(None,), tokens=True, vocabulary=30)

CASES: dict[str, tuple[BlockConfig, InputShape]] = {
    "linear": (LinearConfig(width=3), VECTOR),
    "residual": (LinearConfig(width=5, residual=True, activation="gelu", dropout=0.5), VECTOR),
    "mlp": (MlpConfig(widths=(4, 3), activation="tanh", last_activation="none", dropout=0.5), VECTOR),
    "conv": (ConvConfig(filters=(3, 4), dropout=0.5), IMAGE),
    "conv dropping channels": (ConvConfig(filters=(3, 4), channel_dropout=0.5), IMAGE),
    "conv unflattened": (ConvConfig(filters=(3,), flatten=False, pool=1, kernel=5), IMAGE),
    "bag": (NgramBagConfig(width=4, ngrams=3, buckets=16, token_dropout=0.5, dropout=0.5), TOKENS),
    "unweighted bag": (NgramBagConfig(width=4, ngrams=1, weighted=False, activation="none"), TOKENS),
    "textcnn": (TextCnnConfig(embedding=4, filters=3, kernels=(1, 2, 4), dropout=0.5), TOKENS),
}


def inputs_of(shape: InputShape, rows: int) -> torch.Tensor:
    """Random inputs; texts of unlike lengths, one of them empty."""
    torch.manual_seed(1)
    if not shape.tokens:
        return torch.randn((rows, *shape.dims))
    tokens = torch.randint(1, shape.vocabulary, (rows, 9))
    lengths = torch.tensor([(3 * row) % 10 for row in range(rows)])
    return torch.where(torch.arange(9) < lengths.unsqueeze(1), tokens, 0)


def made(name: str) -> tuple[Block, InputShape, torch.Tensor]:
    """A block with random weights in evaluation mode, its output's shape, and inputs."""
    config, shape = CASES[name]
    torch.manual_seed(0)
    block, following = build_block(config, shape)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape))
        for layer in block.modules():
            if isinstance(layer, torch.nn.Conv1d):
                layer.bias += 4  # so that a window of padding, if it counted, would be the largest
    return block.eval(), following, inputs_of(shape, 7)


@pytest.mark.parametrize("name", CASES)
def test_a_rows_result_depends_on_that_row_alone(name: str) -> None:
    block, _, inputs = made(name)
    together = block(inputs)
    apart = torch.cat([block(inputs[row : row + 1]) for row in range(len(inputs))])
    torch.testing.assert_close(together, apart)
    # Nor on which other rows there are, nor on their order.
    other = inputs.clone()
    other[1:] = inputs[1:].flip(0) if inputs.dtype == torch.int64 else 100 * inputs[1:]
    torch.testing.assert_close(block(other)[0], together[0])


@pytest.mark.parametrize("name", CASES)
def test_shapes_are_as_announced_for_any_number_of_rows(name: str) -> None:
    block, following, inputs = made(name)
    assert not following.tokens
    for rows in (0, 1, 7):
        assert tuple(block(inputs[:rows]).shape) == (rows, *following.dims)


@pytest.mark.parametrize("name", ["bag", "unweighted bag", "textcnn"])
def test_padding_changes_no_texts_result(name: str) -> None:
    block, _, tokens = made(name)
    wanted = block(tokens)
    for extra in (1, 5, 20):
        torch.testing.assert_close(block(torch.nn.functional.pad(tokens, (0, extra))), wanted)
    for row, length in enumerate((tokens > 0).sum(1).tolist()):
        if length:
            torch.testing.assert_close(block(tokens[row : row + 1, :length])[0], wanted[row])


@pytest.mark.parametrize("name", CASES)
def test_dropout_is_for_training_only(name: str) -> None:
    block, _, inputs = made(name)
    torch.testing.assert_close(block(inputs), block(inputs))
    config = CASES[name][0]
    if getattr(config, "dropout", 0) or getattr(config, "channel_dropout", 0):
        block.train()
        assert not torch.equal(block(inputs), block(inputs))


def test_a_residual_block_adds_its_input_and_starts_near_the_identity() -> None:
    block, _ = build_block(LinearConfig(width=5, residual=True, init_scale=1e-4, activation="tanh"), VECTOR)
    inputs = inputs_of(VECTOR, 4)
    torch.testing.assert_close(block(inputs), inputs, atol=1e-3, rtol=0)
    assert not torch.equal(block(inputs), inputs)


def test_init_scale_multiplies_the_initial_weights() -> None:
    def weights(scale: float) -> list[torch.Tensor]:
        torch.manual_seed(3)
        return list(LinearConfig(width=3, init_scale=scale).build(VECTOR).parameters())

    for small, plain in zip(weights(0.25), weights(1.0), strict=True):
        assert small.abs().sum() > 0
        torch.testing.assert_close(small, 0.25 * plain)


def test_a_convolution_stack_is_plain_torch() -> None:
    block, _, images = made("conv")
    convolutions = [layer for layer in block.modules() if isinstance(layer, torch.nn.Conv2d)]
    states = images
    for layer in convolutions:
        states = torch.nn.functional.conv2d(states, layer.weight, layer.bias, padding=1)
        states = torch.nn.functional.max_pool2d(torch.relu(states), 2)
    torch.testing.assert_close(block(images), states.flatten(1))


def test_an_ngram_bag_is_the_weighted_sum_of_its_ngrams() -> None:
    block, _, tokens = made("bag")
    primes = (1_000_003, 7_919, 104_729)
    for row in tokens.tolist():
        text = [token for token in row if token]
        ids = list(text)
        for size in (2, 3):
            for start in range(len(text) - size + 1):
                gram = text[start : start + size]
                ids.append(sum(p * word for p, word in zip(primes, gram, strict=False)) % 16 + 30)
        total, square = np.zeros(4), 0.0
        for index in ids:
            weight = block.weight[index].item()
            total += weight * block.embedding[index].detach().numpy().astype(np.float64)
            square += weight**2
        wanted = np.tanh(total / max(square, 1e-6) ** 0.5 + block.bias.detach().numpy())
        found = block(torch.tensor([row]))[0].detach().numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_textcnn_takes_the_maximum_over_the_windows_that_touch_the_text() -> None:
    block, _, tokens = made("textcnn")
    for row in tokens[(tokens > 0).any(1)]:
        text = row[row > 0]
        words = block.weight[text]
        wanted = []
        for kernel, layer in zip((1, 2, 4), block.convolutions, strict=True):
            reach = torch.zeros(kernel - 1, 4)
            padded = torch.cat([reach, words, reach])
            windows = padded.unfold(0, kernel, 1)  # [windows, E, kernel]
            scores = torch.einsum("wek,fek->wf", windows, layer.weight) + layer.bias
            wanted.append(torch.relu(scores).amax(0))
        torch.testing.assert_close(block(row.unsqueeze(0))[0], torch.cat(wanted))


def test_a_text_without_words_has_a_finite_result() -> None:
    for name in ("bag", "unweighted bag", "textcnn"):
        block, _, _ = made(name)
        result = block(torch.zeros(2, 3, dtype=torch.int64))
        assert torch.isfinite(result).all()
        assert name != "textcnn" or not result.any()  # It has no window that touches a word.


def test_inputs_are_standardised() -> None:
    values = torch.randn(50, 3) * torch.tensor([1.0, 5.0, 0.1]) + 4
    block = Standardise(values.mean(0), 1 / values.std(0))
    assert block(values).mean(0).abs().max() < 1e-5
    torch.testing.assert_close(block(values).std(0), torch.ones(3))


def test_pixels_become_channels_first_and_standardised() -> None:
    pixels = torch.randint(0, 256, (4, 5, 6, 2), dtype=torch.uint8)
    block = ImageInput(torch.tensor([10.0, 20.0]), torch.tensor([0.5, 0.25]))
    states = block(pixels)
    assert states.shape == (4, 2, 5, 6)
    assert states[3, 1, 4, 2] == (float(pixels[3, 4, 2, 1]) - 20) * 0.25


def test_a_linear_head_is_an_affine_map() -> None:
    head, states = LinearHead(4, 3), torch.randn(2, 4)
    torch.testing.assert_close(head(states), states @ head.weight + head.bias)


@pytest.mark.parametrize(
    ("config", "shape", "said"),
    [
        (LinearConfig(width=3), IMAGE, "takes vectors"),
        (MlpConfig(widths=(3,)), TOKENS, "takes vectors"),
        (LinearConfig(width=3, residual=True), VECTOR, "keeps its size"),
        (ConvConfig(), VECTOR, "takes images"),
        (ConvConfig(filters=(2,) * 4), IMAGE, "fewer filters"),
        (ConvConfig(filters=(2,), kernel=4), IMAGE, "odd kernel"),
        (NgramBagConfig(width=3), VECTOR, "takes tokens"),
        (TextCnnConfig(), IMAGE, "takes tokens"),
    ],
)
def test_a_block_that_cannot_take_its_input_says_what_it_takes(
    config: BlockConfig, shape: InputShape, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        build_block(config, shape)


def test_impossible_options_are_refused() -> None:
    for make in (
        lambda: LinearConfig(width=0),
        lambda: MlpConfig(widths=()),
        lambda: LinearConfig(width=2, dropout=1.0),
        lambda: NgramBagConfig(width=2, ngrams=4),
        lambda: LinearConfig(width=2, colour="red"),
    ):
        with pytest.raises(ValidationError):
            make()


def test_the_example_in_the_documentation_works() -> None:
    assert doctest.testmod(coterie.training.blocks).failed == 0
