from __future__ import annotations

import pytest
import torch
from torch import Tensor

from coterie.training.dispatch import distinct_pairs
from coterie.training.ragged import Weights, mix_ragged, run_ragged


def affine(weights: Weights, states: Tensor) -> Tensor:
    return torch.baddbmm(weights["bias"].unsqueeze(1), states, weights["weight"])


@pytest.mark.parametrize("sizes", [[3, 3, 3], [1, 2, 3], [1, 40, 2, 3, 9, 50], [7]])
def test_blocks_with_unlike_numbers_of_rows_answer_and_learn_as_each_alone(sizes: list[int]) -> None:
    torch.manual_seed(0)
    states = torch.randn(sum(sizes), 4, dtype=torch.float64, requires_grad=True)
    weights = {
        "weight": torch.randn(len(sizes), 4, 5, dtype=torch.float64, requires_grad=True),
        "bias": torch.randn(len(sizes), 5, dtype=torch.float64, requires_grad=True),
    }
    together = run_ragged(affine, weights, states, torch.tensor(sizes))
    alone = torch.cat(
        [
            part @ weights["weight"][block] + weights["bias"][block]
            for block, part in enumerate(states.split(sizes))
        ]
    )
    torch.testing.assert_close(together, alone)
    learned, towards = [states, *weights.values()], torch.randn_like(alone)
    found = torch.autograd.grad(together, learned, towards)
    torch.testing.assert_close(found, torch.autograd.grad(alone, learned, towards))


def test_blocks_of_hundredfold_unlike_sizes_are_not_padded_to_the_largest() -> None:
    computed = []

    def count(weights: Weights, states: Tensor) -> Tensor:
        computed.append(states.shape[0] * states.shape[1])
        return affine(weights, states)

    sizes = torch.tensor([100] + [1] * 50)
    weights = {"weight": torch.randn(51, 4, 5), "bias": torch.randn(51, 5)}
    run_ragged(count, weights, torch.randn(150, 4), sizes)
    assert sum(computed) == 150


def test_features_are_added_up_by_weight_and_none_give_zeros() -> None:
    torch.manual_seed(0)
    features = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, dtype=torch.float64, requires_grad=True)
    mixed = mix_ragged(features, torch.tensor([2, 0, 2, 1]), weights, torch.tensor([0, 3, 1]))
    expected = torch.stack(
        [
            torch.zeros(2, 3, dtype=torch.float64),
            weights[0] * features[2] + weights[1] * features[0] + weights[2] * features[2],
            weights[3] * features[1],
        ]
    )
    torch.testing.assert_close(mixed, expected)
    towards = torch.randn_like(expected)
    found = torch.autograd.grad(mixed, [features, weights], towards)
    torch.testing.assert_close(found, torch.autograd.grad(expected, [features, weights], towards))


@pytest.mark.parametrize("states", [4, 100_000])
def test_pairs_are_distinct_and_sorted_however_many_are_possible(states: int) -> None:
    torch.manual_seed(0)
    block, state = torch.randint(5, (200,)), torch.randint(states, (200,))
    pairs = distinct_pairs(block, state, states)
    found = list(zip(pairs.block.tolist(), pairs.state.tolist(), strict=True))
    assert found == sorted(set(zip(block.tolist(), state.tolist(), strict=True)))
    assert torch.equal(pairs.block[pairs.index], block)
    assert torch.equal(pairs.state[pairs.index], state)
