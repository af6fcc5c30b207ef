"""Gates that look at the input: what they give each expert, and what keeps experts in use."""

from __future__ import annotations

import pytest
import torch
from tests.training.making import LINEAR, linear_bank, model_of, tasks
from torch import Tensor

from coterie.runtime.errors import ConfigError
from coterie.training.blocks import InputShape
from coterie.training.stages._input_gated import Mixture
from coterie.training.stages._input_gates import (
    DSelectInputGate,
    GateInput,
    NoisyTopKGate,
    SoftmaxInputGate,
)
from coterie.training.stages._ple import Extraction, Level

INPUTS = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))


def every(states: int, gates: int) -> Tensor:
    return torch.ones(states, gates, dtype=torch.bool)


def test_a_mixture_is_the_sum_of_experts_times_their_shares() -> None:
    bank, gate = linear_bank(3), SoftmaxInputGate(4, 2, 3)
    mixture = Mixture(bank, GateInput(InputShape(dims=(4,))), gate)
    features = bank.run_each(INPUTS.unsqueeze(0))
    result = mixture(INPUTS)
    for reader in range(2):
        shares = torch.softmax(INPUTS @ gate.logits.weight[reader] + gate.logits.bias[reader], dim=1)
        wanted = sum(shares[:, [expert]] * features[expert] for expert in range(3))
        torch.testing.assert_close(result[:, reader], wanted)


def test_blocks_that_are_run_at_once_give_what_they_give_in_turn() -> None:
    bank = linear_bank(3)
    states = torch.randn(3, 5, 4)
    together = bank.run_each(states)
    bank.template.batched = False
    torch.testing.assert_close(bank.run_each(states), together)
    torch.testing.assert_close(bank.run_each(states[:1]), bank.run_each(states[:1].expand(3, -1, -1)))


class TestNoisyTopK:
    def gate(
        self, experts: int = 5, k: int = 2, *, importance: float = 1.0, load: float = 1.0
    ) -> NoisyTopKGate:
        torch.manual_seed(3)
        gate = NoisyTopKGate(4, 2, experts, k, importance=importance, load=load)
        with torch.no_grad():
            for parameter in gate.parameters():
                parameter.copy_(torch.randn_like(parameter))
        return gate

    def test_k_experts_share_an_input(self) -> None:
        gate = self.gate()
        for training in (True, False):
            shares = gate.train(training)(INPUTS)
            assert ((shares > 0).sum(dim=-1) == 2).all()
            torch.testing.assert_close(shares.sum(dim=-1), torch.ones(7, 2))

    def test_there_is_noise_while_training_only(self) -> None:
        gate = self.gate()
        assert not torch.equal(gate.train()(INPUTS), gate(INPUTS))
        assert torch.equal(gate.eval()(INPUTS), gate(INPUTS))

    def test_the_load_is_how_often_an_expert_would_be_chosen_with_other_noise(self) -> None:
        gate = self.gate().train()
        clean, deviation = gate.logits(INPUTS), torch.nn.functional.softplus(gate.noise(INPUTS))
        noisy = clean + torch.randn_like(clean) * deviation
        chances = gate._chances(clean, noisy, deviation)
        others = noisy.clone()
        others[..., 0] = -torch.inf
        bar = others.topk(2, dim=-1).values[..., -1]
        drawn = clean[..., 0] + torch.randn(20_000, 7, 2) * deviation[..., 0]
        torch.testing.assert_close(chances[..., 0], (drawn > bar).float().mean(0), atol=0.02, rtol=0)

    def test_experts_that_are_used_alike_cost_nothing_and_others_do(self) -> None:
        gate = NoisyTopKGate(4, 1, 4, 4, importance=2.0, load=1.0).train()
        gate.noise.bias.data.fill_(-30)  # as good as no noise
        gate(INPUTS)
        assert gate.auxiliary(every(7, 1)).item() == pytest.approx(0, abs=1e-6)
        gate.logits.bias.data[0, 0] = 30
        gate(INPUTS)
        # One expert of four takes all: the variance of (7, 0, 0, 0) over its squared mean is 4.
        assert gate.auxiliary(every(7, 1)).item() == pytest.approx(2 * 4, rel=1e-4)

    def test_only_what_was_asked_counts(self) -> None:
        gate = self.gate().train()
        asked = every(7, 2)
        asked[:, 1] = False
        gate(INPUTS)
        gate.auxiliary(asked).backward()
        for parameter in gate.parameters():
            assert parameter.grad is not None
            assert parameter.grad[0].abs().sum() > 0
            assert parameter.grad[1].abs().sum() == 0

    def test_balance_is_learned(self) -> None:
        gate = self.gate(importance=1.0, load=1.0).train()
        optimizer = torch.optim.Adam(gate.parameters(), lr=0.05)
        prices = []
        for _ in range(100):
            gate(INPUTS)
            price = gate.auxiliary(every(7, 2))
            optimizer.zero_grad()
            price.backward()
            optimizer.step()
            prices.append(price.item())
        assert sum(prices[-10:]) < 0.3 * sum(prices[:10])


class TestDSelectK:
    def gate(self, experts: int) -> DSelectInputGate:
        torch.manual_seed(1)
        return DSelectInputGate(4, 2, experts, 2, entropy=1.0)

    @pytest.mark.parametrize("experts", [2, 4, 6])
    def test_decided_selectors_are_one_expert_each(self, experts: int) -> None:
        gate = self.gate(experts).train()
        gate.selectors.weight.data.mul_(1e4)
        shares = gate(INPUTS)
        assert ((shares > 0).sum(dim=-1) <= 2).all()
        if experts != 6:
            torch.testing.assert_close(shares.sum(dim=-1), torch.ones(7, 2))
            assert gate.auxiliary(every(7, 2)).item() == pytest.approx(0, abs=1e-6)

    def test_undecided_selectors_divide_an_input_among_all_experts(self) -> None:
        gate = self.gate(4)
        gate.selectors.weight.data.zero_()
        gate.selectors.bias.data.zero_()
        torch.testing.assert_close(gate(INPUTS), torch.full((7, 2, 4), 0.25))

    def test_the_price_of_entropy_decides_the_selectors_for_experts_that_exist(self) -> None:
        gate = self.gate(6).train()
        optimizer = torch.optim.Adam(gate.parameters(), lr=0.05)
        for _ in range(150):
            gate(INPUTS)
            price = gate.auxiliary(every(7, 2))
            optimizer.zero_grad()
            price.backward()
            optimizer.step()
        shares = gate(INPUTS)
        assert price.item() < 0.1
        torch.testing.assert_close(shares.sum(dim=-1), torch.ones(7, 2), atol=0.02, rtol=0)


class TestPle:
    def extraction(self, levels: int) -> Extraction:
        torch.manual_seed(2)
        given = GateInput(InputShape(dims=(4,)))
        return Extraction(
            [
                Level(linear_bank(2, width=4), linear_bank(6, width=4), given, 3, last=level == levels - 1)
                for level in range(levels)
            ]
        )

    def changed(self, block: Extraction, change: Tensor) -> list[bool]:
        """Return which tasks' states change with a weight."""
        before = block(INPUTS)
        with torch.no_grad():
            change.add_(1.0)
        after = block(INPUTS)
        return [not torch.equal(before[:, task], after[:, task]) for task in range(3)]

    def test_on_one_level_a_tasks_own_experts_are_its_own(self) -> None:
        block = self.extraction(1)
        # Two of its own for each of three tasks: the third and fourth are task 1's.
        assert self.changed(block, block.levels[0].own.weights["layer/weight"][3]) == [False, True, False]
        assert self.changed(block, block.levels[0].shared.weights["layer/weight"][1]) == [True, True, True]

    def test_on_the_next_level_tasks_meet_in_the_shared_state(self) -> None:
        block = self.extraction(2)
        assert self.changed(block, block.levels[0].own.weights["layer/weight"][3]) == [True, True, True]
        assert self.changed(block, block.levels[1].own.weights["layer/weight"][3]) == [False, True, False]

    def test_each_gate_reads_its_own_tasks_state(self) -> None:
        block = self.extraction(2)
        level = block.levels[1]
        own, common = torch.randn(3, 5, 4), torch.randn(5, 4)
        _, result = level(common, own)
        features = torch.cat(
            [
                level.shared.run_each(common.unsqueeze(0)),
                level.own.run_each(own.repeat_interleave(2, dim=0))[2:4],
            ]
        )
        shares = level.gate.logits(own[1])[:, 1].softmax(dim=-1)
        torch.testing.assert_close(result[1], torch.einsum("sm,msd->sd", shares, features))


def test_gates_read_sequences_without_their_padding_and_images_by_channel() -> None:
    sequences = torch.randn(2, 3, 5)
    read = GateInput(InputShape(dims=(None, 5)))
    torch.testing.assert_close(read(sequences), sequences.mean(1))
    padded = torch.nn.functional.pad(sequences, (0, 0, 0, 4))
    torch.testing.assert_close(read(padded), sequences.mean(1))
    images = torch.randn(2, 3, 4, 4)
    read = GateInput(InputShape(dims=(3, 4, 4)))
    assert read.size == 3
    torch.testing.assert_close(read(images), images.mean((2, 3)))
    with pytest.raises(ConfigError, match="put a stage that makes states of it before"):
        GateInput(InputShape(dims=(None,), tokens=True, vocabulary=9))


def test_choosing_more_experts_than_there_are_is_a_mistake() -> None:
    stage = {"kind": "input_gated", "gate": "noisy_topk", "k": 4, "experts": 3, "block": LINEAR}
    with pytest.raises(ConfigError) as caught:
        model_of([stage], tasks(2))
    (problem,) = caught.value.problems
    assert problem == "model.stages.0.k: 4 of 3 experts cannot be chosen: use fewer"
