"""Blocks on sequences: padding weighs nothing, wherever a sequence ends and whatever stands beside it."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from coterie.runtime.errors import ConfigError
from coterie.training.blocks import (
    AttentionPoolConfig,
    Block,
    BlockConfig,
    HanConfig,
    InputShape,
    LstmConfig,
    TextCnnConfig,
    TransformerConfig,
    WordsConfig,
    build_block,
)

SEQUENCE = InputShape(dims=(None, 4))
SENTENCES = InputShape(dims=(5, 6, 4))
VOCABULARY = ("[PAD]", "[UNK]", ".", "!", "a", "b", "c", "d", "e", "f")
TOKENS = InputShape(dims=(None,), tokens=True, vocabulary=len(VOCABULARY), words=VOCABULARY)

CASES: dict[str, tuple[BlockConfig, InputShape]] = {
    "lstm last": (LstmConfig(width=3), SEQUENCE),
    "bilstm last": (LstmConfig(width=3, layers=2, bidirectional=True, dropout=0.5), SEQUENCE),
    "bilstm none": (LstmConfig(width=3, bidirectional=True, pool="none"), SEQUENCE),
    "bilstm dense": (
        LstmConfig(width=3, layers=2, bidirectional=True, pool="none", dense=True),
        SEQUENCE,
    ),
    "lstm max": (LstmConfig(width=3, pool="max"), SEQUENCE),
    "lstm mean": (LstmConfig(width=3, pool="mean"), SEQUENCE),
    "lstm attention": (LstmConfig(width=3, bidirectional=True, pool="attention"), SEQUENCE),
    "lstm of words of sentences": (LstmConfig(width=3, bidirectional=True, pool="last"), SENTENCES),
    "attention pool": (AttentionPoolConfig(width=2), SEQUENCE),
    "textcnn": (TextCnnConfig(filters=3, kernels=(1, 3)), SEQUENCE),
    "transformer mean": (TransformerConfig(width=4, heads=2), SEQUENCE),
    "transformer none": (TransformerConfig(width=4, heads=2, layers=1, pool="none"), SEQUENCE),
    "han": (HanConfig(width=3), SENTENCES),
    "words": (WordsConfig(width=3), TOKENS),
    "sentences": (WordsConfig(width=3, sentences={"count": 3, "words": 4}), TOKENS),
}


def made(name: str) -> tuple[Block, InputShape]:
    config, shape = CASES[name]
    torch.manual_seed(0)
    block, following = build_block(config, shape)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return block.eval(), following


def inputs_of(shape: InputShape, rows: int = 8) -> Tensor:
    """Sequences of unlike lengths, one of them empty; sentences likewise."""
    torch.manual_seed(1)
    length = 9 if shape.dims[0] is None else shape.dims[0]
    lengths = torch.tensor([(4 * row) % (length + 1) for row in range(rows)])
    inside = torch.arange(length) < lengths.unsqueeze(1)
    if shape.tokens:
        return torch.randint(1, shape.vocabulary, (rows, length)) * inside
    states = torch.randn((rows, length, *shape.dims[1:]))
    if len(shape.dims) == 3:
        words = torch.arange(1, length + 1) % (shape.dims[1] + 1)
        states = states * (torch.arange(shape.dims[1]) < words.unsqueeze(1)).unsqueeze(-1)
    return states * inside.reshape(rows, length, *[1] * (states.dim() - 2))


def padded(states: Tensor, by: int) -> Tensor:
    """More padding along the first axis after the batch."""
    return torch.cat([states, states.new_zeros((len(states), by, *states.shape[2:]))], dim=1)


@pytest.mark.parametrize("name", CASES)
def test_a_rows_result_depends_on_that_row_alone_and_not_on_padding(name: str) -> None:
    block, _ = made(name)
    inputs = inputs_of(CASES[name][1])
    together = block(inputs)
    apart = torch.cat([block(inputs[row : row + 1]) for row in range(len(inputs))])
    torch.testing.assert_close(together, apart)
    longer = block(padded(inputs, 5))
    if longer.shape != together.shape:
        assert not longer[:, inputs.shape[1] :].any()
        longer = longer[:, : inputs.shape[1]]
    torch.testing.assert_close(longer, together)


@pytest.mark.parametrize("name", CASES)
def test_padding_stays_zeros_and_an_empty_row_has_a_finite_result(name: str) -> None:
    block, following = made(name)
    inputs = inputs_of(CASES[name][1])
    result = block(inputs)
    assert torch.isfinite(result).all()
    assert not result[0].any()  # the empty row
    if None in following.dims:
        lengths = [(4 * row) % 10 for row in range(len(inputs))]
        for row, length in enumerate(lengths):
            assert result[row, :length].any(dim=-1).all()
            assert not result[row, length:].any()


@pytest.mark.parametrize("name", CASES)
def test_any_number_of_rows_and_a_length_of_one(name: str) -> None:
    block, following = made(name)
    inputs = inputs_of(CASES[name][1])
    sizes = [inputs.shape[1] if size is None else size for size in following.dims]
    for rows in (0, 1, 8):
        assert tuple(block(inputs[:rows]).shape) == (rows, *sizes)
    if CASES[name][1].dims[0] is None:
        one = block(inputs[1:2, :1])
        assert torch.isfinite(one).all()
        assert one.any()


@pytest.mark.parametrize("name", CASES)
def test_empty_rows_do_not_spoil_the_gradient(name: str) -> None:
    block, _ = made(name)
    inputs = inputs_of(CASES[name][1])
    block(inputs).square().sum().backward()
    for parameter in block.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.any() or parameter.dim() < 2


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("pool", ["none", "last"])
def test_an_lstm_is_torchs_on_packed_sequences(bidirectional: bool, pool: str) -> None:
    config = LstmConfig(width=5, layers=2, bidirectional=bidirectional, pool=pool)
    block, _ = build_block(config, SEQUENCE)
    plain = torch.nn.LSTM(4, 5, 2, batch_first=True, bidirectional=bidirectional)
    with torch.no_grad():
        for number, layer in enumerate(block.layers):
            for direction in range(2 if bidirectional else 1):
                suffix = f"_l{number}" + ("_reverse" if direction else "")
                weight, recurrent, bias = list(layer.weights)[3 * direction : 3 * direction + 3]
                getattr(plain, f"weight_ih{suffix}").copy_(weight)
                getattr(plain, f"weight_hh{suffix}").copy_(recurrent)
                getattr(plain, f"bias_ih{suffix}").copy_(bias)
                getattr(plain, f"bias_hh{suffix}").zero_()
    inputs = inputs_of(SEQUENCE, 40)  # more than run together
    lengths = (inputs != 0).any(-1).sum(1)
    inputs, lengths = inputs[lengths > 0], lengths[lengths > 0]
    packed = torch.nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
    states, (hidden, _) = plain(packed)
    if pool == "none":
        wanted, _ = torch.nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=9)
    else:
        wanted = torch.cat(list(hidden[-2:] if bidirectional else hidden[-1:]), dim=-1)
    torch.testing.assert_close(block(inputs), wanted)


def test_a_text_is_divided_at_the_ends_of_its_sentences() -> None:
    block, following = build_block(WordsConfig(width=2, sentences={"count": 3, "words": 4}), TOKENS)
    assert following.dims == (3, 4, 2)
    text = ["a", "b", ".", "!", "c", "d", "e", "f", "a", "b", ".", "d", "!", "e", "f", ".", "f"]
    tokens = torch.tensor([[VOCABULARY.index(word) for word in text]])
    wanted = ["a b . !", "c d e f", "d !"]  # several ends are one; the second is cut, the fourth left out
    laid = block.sentences(tokens)[0]
    assert [" ".join(VOCABULARY[word] for word in row if word) for row in laid.tolist()] == wanted


def test_han_attends_to_no_empty_sentence() -> None:
    block, _ = made("han")
    states = inputs_of(SENTENCES)[2:3]
    assert states.any(-1).any(-1).tolist() == [[True, True, False, False, False]]
    # Were a sentence of nothing attended to, one less of them would make a difference.
    torch.testing.assert_close(block(states[:, :2]), block(states))


@pytest.mark.parametrize(
    ("config", "shape", "said"),
    [
        (LstmConfig(width=3), TOKENS, "takes sequences"),
        (LstmConfig(width=3), InputShape(dims=(4,)), "takes sequences"),
        (HanConfig(), SEQUENCE, "set sentences"),
        (TextCnnConfig(), SENTENCES, "takes tokens"),
        (TransformerConfig(width=6, heads=4), SEQUENCE, "heads"),
        (WordsConfig(width=3), SEQUENCE, "takes tokens"),
        (WordsConfig(width=3, sentences={"ends": ["?"]}), TOKENS, "set ends"),
    ],
)
def test_a_block_that_cannot_take_its_input_says_what_it_takes(
    config: BlockConfig, shape: InputShape, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        build_block(config, shape)


def test_vectors_come_from_one_place() -> None:
    with pytest.raises(ValidationError, match="not both"):
        WordsConfig(width=3, vectors="glove.txt", train={})
    with pytest.raises(ValidationError, match="vectors from somewhere"):
        WordsConfig(width=3, trainable=False)
