from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.training.making import count_rows, linear_bank, questions
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from coterie.training.bank import Bank
from coterie.training.blocks import InputShape, MlpConfig, NgramBagConfig, Standardise
from coterie.training.dispatch import State, distinct_pairs
from coterie.training.stages import HardStage, SpecificStage


def mlp_bank(blocks: int, *, together: bool = True, **options: object) -> Bank:
    config = MlpConfig(widths=(5, 3), activation="tanh", **options)
    bank = Bank(lambda: config.build(InputShape(dims=(4,))), blocks)
    bank.template.batched = together
    return bank


def separate(bank: Bank) -> list[nn.Module]:
    """Every block as a module of its own."""
    modules = []
    for block in range(bank.blocks):
        module = MlpConfig(widths=(5, 3), activation="tanh").build(InputShape(dims=(4,)))
        module.load_state_dict(bank.tensors(block))
        modules.append(module)
    return modules


@pytest.mark.parametrize("together", [True, False])
def test_a_bank_answers_as_its_blocks_one_by_one_and_has_their_gradients(together: bool) -> None:
    torch.manual_seed(0)
    bank = mlp_bank(5, together=together)
    modules = separate(bank)
    states = torch.randn(9, 4)
    block = torch.tensor([0, 0, 1, 1, 1, 3, 3, 4, 4])
    found = bank.run(states, block)
    wanted = torch.cat([modules[b](states[i : i + 1]) for i, b in enumerate(block.tolist())])
    torch.testing.assert_close(found, wanted)
    factor = torch.randn(9, 3)
    (found * factor).sum().backward()
    (wanted * factor).sum().backward()
    for name, stacked in bank.weights.items():
        for index, module in enumerate(modules):
            gradient = module.get_parameter(name.replace("/", ".")).grad
            expected = torch.zeros_like(stacked[index]) if gradient is None else gradient
            torch.testing.assert_close(stacked.grad[index], expected)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 4), max_size=12), st.randoms())
def test_any_ascending_blocks_are_run_in_order(blocks: list[int], random: object) -> None:
    torch.manual_seed(1)
    bank = mlp_bank(5)
    states = torch.randn(len(blocks), 4)
    found = bank.run(states, torch.tensor(sorted(blocks), dtype=torch.int64))
    assert found.shape == (len(blocks), 3)
    modules = separate(bank)
    for row, block in enumerate(sorted(blocks)):
        torch.testing.assert_close(found[row : row + 1], modules[block](states[row : row + 1]))


def test_running_together_computes_little_more_than_running_in_turn() -> None:
    """However unlike the blocks' numbers of rows are, and however many blocks there are."""

    def flops(blocks: int, rows: list[int]) -> int:
        bank = mlp_bank(blocks)
        block = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(rows))
        with FlopCounterMode(display=False) as counter:
            bank.run(torch.randn(sum(rows), 4), block).sum().backward()
        return int(counter.get_total_flops())

    fewest = flops(1, [100])
    for blocks, rows in [(100, [1] * 100), (100, [50, 50]), (500, [97, 1, 1, 1]), (60, [41, *[1] * 59])]:
        assert flops(blocks, rows) <= 4 * fewest


def test_rows_that_run_together_are_dropped_independently() -> None:
    bank = mlp_bank(8, dropout=0.5).train()
    states, block = torch.ones(64, 4), torch.arange(8).repeat_interleave(8)
    dropped = bank.run(states, block).reshape(8, 8, 3) == 0
    assert 0.3 < float(dropped.float().mean()) < 0.7
    assert len(dropped.unique(dim=0)) > 1
    assert len(dropped.unique(dim=1)[0]) > 1
    torch.manual_seed(3)
    first = bank.run(states, block)
    torch.manual_seed(3)
    assert torch.equal(bank.run(states, block), first)
    assert (bank.eval().run(states, block) != 0).all()


def test_blocks_that_nobody_asks_for_are_not_run() -> None:
    bank = linear_bank(50)
    rows = count_rows(bank)
    bank.run(torch.randn(5, 4), torch.tensor([3, 3, 3, 40, 40]))
    assert rows == [3, 2]


def test_weights_can_take_the_place_of_the_banks_own() -> None:
    bank = linear_bank(4)
    states = torch.randn(3, 4)
    others = {name: torch.randn(2, *weight.shape[1:]) for name, weight in bank.weights.items()}
    found = bank.run(states, torch.tensor([0, 1, 1]), others)
    for row, block in enumerate([0, 1, 1]):
        named = {name.replace("/", "."): weight[block] for name, weight in others.items()}
        torch.testing.assert_close(
            found[row : row + 1], functional_call(bank.template, named, (states[row : row + 1],))
        )


def test_alike_blocks_have_the_first_ones_weights_and_others_do_not() -> None:
    alike, unlike = linear_bank(3, alike=True), linear_bank(3)
    assert torch.equal(alike.flat(), alike.flat()[:1].expand(3, -1))
    assert not torch.equal(unlike.flat()[0], unlike.flat()[1])


def test_rows_of_weights_are_cut_into_the_tensors_they_were_made_of() -> None:
    bank = mlp_bank(4)
    cut = bank.unflatten(bank.flat())
    assert bank.flat().shape == (4, bank.block_parameters)
    for name, weight in bank.weights.items():
        assert torch.equal(cut[name], weight)


def test_the_architectures_constants_are_saved_with_the_weights() -> None:
    def bank(mean: float) -> Bank:
        return Bank(lambda: Standardise(torch.full((4,), mean), torch.ones(4)), 1)

    states = torch.randn(2, 4)
    target = bank(0.0)
    target.load_state_dict(bank(3.0).state_dict())
    torch.testing.assert_close(target.run(states, torch.zeros(2, dtype=torch.int64)), states - 3)
    assert set(target.tensors(0)) == {"mean", "scale"}


def test_an_architectures_own_learning_rates_are_known() -> None:
    config = NgramBagConfig(width=2, buckets=4, weight_rate=3.0)
    bank = Bank(lambda: config.build(InputShape(dims=(None,), tokens=True, vocabulary=5)), 1)
    assert bank.rates() == {id(bank.weights["weight"]): 3.0}


def test_needs_of_one_block_for_one_state_are_one_pair() -> None:
    block, state = torch.tensor([2, 0, 2, 0, 2]), torch.tensor([1, 3, 1, 0, 2])
    pairs = distinct_pairs(block, state, 4)
    assert list(zip(pairs.block.tolist(), pairs.state.tolist(), strict=True)) == [
        (0, 0),
        (0, 3),
        (2, 1),
        (2, 2),
    ]
    assert torch.equal(pairs.block[pairs.index], block)
    assert torch.equal(pairs.state[pairs.index], state)


def test_no_needs_make_no_pairs() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    pairs = distinct_pairs(nothing, nothing, 0)
    assert len(pairs.block) == len(pairs.state) == len(pairs.index) == 0


def test_a_question_asked_twice_runs_its_block_once() -> None:
    stage = SpecificStage("own", 3, linear_bank(3))
    rows = count_rows(stage.bank)
    values = torch.randn(2, 4)
    row, task = torch.tensor([0, 0, 1, 0, 1]), torch.tensor([1, 1, 1, 2, 2])
    state = stage(State(values, row), task)
    assert sum(rows) == 4  # (1, row 0), (1, row 1), (2, row 0), (2, row 1)
    assert len(state.values) == 4
    assert torch.equal(state.values[state.position[0]], state.values[state.position[1]])


def test_a_hard_layer_runs_once_for_each_input_however_many_questions_there_are() -> None:
    stage = HardStage("trunk", 9, linear_bank(1))
    rows = count_rows(stage.bank)
    row, task = questions(40, rows=3, number_of_tasks=9)
    state = stage(State(torch.randn(3, 4), row), task)
    assert rows == [3]
    assert torch.equal(state.position, row)


@pytest.mark.parametrize("stage", [HardStage("a", 3, linear_bank(1)), SpecificStage("b", 3, linear_bank(3))])
def test_no_questions_and_no_inputs_are_legal(stage: HardStage | SpecificStage) -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    assert stage(State(torch.zeros(0, 4), nothing), nothing).values.shape == (0, 3)
