"""Many affine maps together answer and learn as each does alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, vmap

from coterie.training.blocks._linear import Affine

BLOCKS, ROWS, SIZE, WIDTH = 3, 5, 4, 6


def together(states: Tensor, of_states: int | None) -> tuple[Tensor, dict[str, Tensor]]:
    """The answers of three maps, and their weights."""
    torch.manual_seed(0)
    template = Affine(SIZE, WIDTH).train()
    weights = {
        "weight": torch.randn(BLOCKS, WIDTH, SIZE, requires_grad=True),
        "bias": torch.randn(BLOCKS, WIDTH, requires_grad=True),
    }
    run = vmap(lambda own, given: functional_call(template, own, (given,)), in_dims=(0, of_states))
    return run(weights, states), weights


@pytest.mark.parametrize("same", [False, True], ids=["states of its own", "the same states"])
def test_many_maps_learn_as_plain_ones(same: bool) -> None:
    shape = (ROWS, SIZE) if same else (BLOCKS, ROWS, SIZE)
    states = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    answers, weights = together(states, None if same else 0)
    plain = torch.stack(
        [
            torch.nn.functional.linear(
                states if same else states[at], weights["weight"][at], weights["bias"][at]
            )
            for at in range(BLOCKS)
        ]
    )
    torch.testing.assert_close(answers, plain)
    learned = [*weights.values(), states]
    towards = torch.randn(answers.shape)
    found = torch.autograd.grad(answers, learned, towards)
    torch.testing.assert_close(found, torch.autograd.grad(plain, learned, towards))


def test_the_gradient_lies_as_the_weight_does() -> None:
    answers, weights = together(torch.randn(BLOCKS, ROWS, SIZE), 0)
    (found,) = torch.autograd.grad(answers.sum(), weights["weight"])
    assert found.is_contiguous()


def test_one_map_of_states_of_several_is_the_same_for_all() -> None:
    template = Affine(SIZE, WIDTH).train()
    states = torch.randn(BLOCKS, ROWS, SIZE)
    torch.testing.assert_close(
        vmap(template)(states), torch.nn.functional.linear(states, *template.parameters())
    )
    torch.testing.assert_close(
        vmap(template, in_dims=1)(states),
        torch.nn.functional.linear(states.transpose(0, 1), *template.parameters()),
    )
