"""LSTM (one a task) and HardShare train like plain torch modules: same weights, same data, same steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.training.making import tasks
from torch import Tensor, nn

from coterie.runtime.manifest import TensorSpec
from coterie.training import ModelConfig, MultiTaskModel, build_model
from coterie.training.blocks import InputShape
from coterie.training.yaml_config import load_config

TASKS, VOCABULARY, WIDTH, STATE = 3, 24, 8, 10


class Plain(nn.Module):
    """What a newcomer would write: embedding, packed LSTM, last state, linear."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH, padding_idx=0)
        self.lstm = nn.LSTM(WIDTH, STATE, batch_first=True)
        self.heads = nn.ModuleList(nn.Linear(STATE, 2) for _ in range(heads))

    def forward(self, tokens: Tensor, head: int) -> Tensor:
        lengths = (tokens > 0).sum(1)
        packed = nn.utils.rnn.pack_padded_sequence(
            self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False
        )
        scores: Tensor = self.heads[head](self.lstm(packed)[1][0][0])
        return scores


def texts(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Texts that hold one good or one bad word somewhere."""
    length = 12
    tokens = torch.randint(3, VOCABULARY, (rows, length), generator=generator)
    ends = torch.randint(1, length + 1, (rows,), generator=generator)
    kind = torch.randint(2, (rows,), generator=generator)
    place = (torch.rand(rows, generator=generator) * ends).long()
    tokens[torch.arange(rows), place] = 1 + kind
    return torch.where(torch.arange(length) < ends.unsqueeze(1), tokens, 0), kind


def ours(kind: str) -> MultiTaskModel:
    stages: list[dict[str, Any]] = [
        {"kind": kind, "name": "words", "block": {"kind": "words", "width": WIDTH}},
        {"kind": kind, "name": "lstm", "block": {"kind": "lstm", "width": STATE}},
    ]
    return build_model(
        load_config(ModelConfig, source={"stages": stages}),
        input=TensorSpec(name="tokens", dtype="int64", shape=(None, None)),
        shape=InputShape(dims=(None,), tokens=True, vocabulary=VOCABULARY),
        tasks=tasks(TASKS),
    )


def plain_like(model: MultiTaskModel, kind: str) -> list[Plain]:
    """The same weights in plain modules: one a task, or one with a head for each."""
    words, lstm, head = model.each_stage()
    alone = kind == "specific"
    modules = []
    with torch.no_grad():
        for number in range(TASKS if alone else 1):
            module = Plain(1 if alone else TASKS)
            module.embedding.weight.copy_(words.bank.weights["table"][number])
            module.embedding.weight[0] = 0
            names = [f"layers/0/weights/{index}" for index in range(3)]
            weight, recurrent, bias = (lstm.bank.weights[name][number] for name in names)
            module.lstm.weight_ih_l0.copy_(weight)
            module.lstm.weight_hh_l0.copy_(recurrent)
            module.lstm.bias_ih_l0.copy_(bias)
            module.lstm.bias_hh_l0.zero_()
            module.lstm.bias_hh_l0.requires_grad_(False)
            for index, linear in enumerate(module.heads):
                task = number if alone else index
                linear.weight.copy_(head.weights[0][task].T)
                linear.bias.copy_(head.biases[0][task])
            modules.append(module)
    return modules


@pytest.mark.parametrize("kind", ["specific", "hard"])
def test_it_trains_like_plain_torch(kind: str) -> None:
    model = ours(kind)
    modules = plain_like(model, kind)
    parameters = [each for module in modules for each in module.parameters() if each.requires_grad]
    optimizers = [torch.optim.Adam(each, lr=0.01) for each in (model.parameters(), parameters)]
    generator = torch.Generator().manual_seed(0)
    task = torch.arange(48) % TASKS  # every task in every batch, so that Adam sees the same gradients

    def plain(tokens: Tensor) -> Tensor:
        scores = torch.zeros(len(tokens), 2)
        for number in range(TASKS):
            module, head = (modules[number], 0) if kind == "specific" else (modules[0], number)
            rows = (task[: len(tokens)] == number).nonzero().flatten()
            scores = scores.index_copy(0, rows, module(tokens[rows], head))
        return scores

    row = torch.arange(48)
    for step in range(120):
        tokens, target = texts(48, generator)
        answers = model(tokens, row, task), plain(tokens)
        if step < 20:  # later, rounding errors have grown
            torch.testing.assert_close(*answers, rtol=1e-3, atol=1e-3)
        for optimizer, scores in zip(optimizers, answers, strict=True):
            optimizer.zero_grad()
            nn.functional.cross_entropy(scores, target).backward()
            optimizer.step()
    tokens, target = texts(960, generator)
    right = [
        torch.cat([answer(part).argmax(1) for part in tokens.split(48)]).eq(target).float().mean().item()
        for answer in (lambda part: model.eval()(part, row, task), plain)
    ]
    assert min(right) > 0.9
    assert abs(right[0] - right[1]) < 0.02
