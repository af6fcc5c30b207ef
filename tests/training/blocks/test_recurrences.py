"""LSTMs that step together say and learn what each says and learns alone; dropout keeps what it should."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from coterie.training.bank import Bank
from coterie.training.blocks import InputShape, LstmConfig
from coterie.training.blocks._dropout import Dropout
from coterie.training.blocks._recurrence import recur
from coterie.training.blocks._recurrences import recur_each
from coterie.training.blocks._word_chars import _ODD, _distinct

SIZE, WIDTH = 4, 3


def weights_of(blocks: int, directions: int) -> list[Tensor]:
    shapes = [(4 * WIDTH, SIZE), (4 * WIDTH, WIDTH), (4 * WIDTH,)] * directions
    return [torch.randn(blocks, *shape, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(
    ("blocks", "lengths"),
    [
        (1, [[4]]),
        (3, [[2, 5, 0, 5, 1]]),
        (3, [[2, 5, 0], [7, 1, 1], [0, 0, 4]]),
        (4, [[6, 2, 3], [1, 7, 3]]),
    ],
)
def test_together_they_give_what_each_gives_alone(
    directions: int, blocks: int, lengths: list[list[int]]
) -> None:
    torch.manual_seed(0)
    ends, weights = torch.tensor(lengths), weights_of(blocks, directions)
    states = torch.randn(*ends.shape, 7, SIZE, requires_grad=True)
    readers = blocks // len(ends)
    together = recur_each(states, ends, weights)
    alone = torch.stack(
        [
            recur(states[block // readers], ends[block // readers], [weight[block] for weight in weights])
            for block in range(blocks)
        ]
    )
    torch.testing.assert_close(together, alone)
    told = torch.randn_like(alone)
    found = torch.autograd.grad((together * told).sum(), [states, *weights])
    wanted = torch.autograd.grad((alone * told).sum(), [states, *weights])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_where_blocks_compute_in_bf16_an_lstm_steps_in_fp32() -> None:
    torch.manual_seed(0)
    states, ends = torch.randn(3, 7, SIZE), torch.tensor([7, 2, 0])
    weights = [weight[0] for weight in weights_of(1, 2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = recur(states.bfloat16(), ends, weights)
    narrow.sum().backward()
    torch.testing.assert_close(narrow, recur(states, ends, weights), atol=0.02, rtol=0)


def test_nothing_to_read_gives_zeros() -> None:
    states = torch.randn(1, 2, 5, SIZE)
    assert not recur_each(states, torch.zeros(1, 2, dtype=torch.int64), weights_of(3, 2)).any()
    assert recur_each(states[:, :0], torch.zeros(1, 0, dtype=torch.int64), weights_of(3, 2)).shape == (
        3,
        0,
        5,
        6,
    )


@pytest.mark.parametrize("pool", ["none", "dense", "last", "max", "mean", "attention"])
@pytest.mark.parametrize("dims", [(None, SIZE), (2, 5, SIZE)])
def test_a_bank_of_lstms_runs_each_on_its_states(pool: str, dims: tuple[int | None, ...]) -> None:
    torch.manual_seed(0)
    how = {"pool": "none", "dense": True} if pool == "dense" else {"pool": pool}
    config = LstmConfig.model_validate({"width": WIDTH, "layers": 2, "bidirectional": True, **how})
    bank = Bank(lambda: config.build(InputShape(dims=dims)), 4).eval()
    states = torch.randn(2, 3, *(5 if size is None else size for size in (dims if dims[0] else (5, SIZE))))
    states[0, 0, ..., 3:, :] = 0
    states[1, 2] = 0
    found = bank.run_each(states)
    for block in range(4):
        torch.testing.assert_close(found[block], bank.run(states[block // 2], torch.full((3,), block)))
    every = states.repeat_interleave(2, dim=0).flatten(0, 1)
    of = torch.arange(4).repeat_interleave(3)
    torch.testing.assert_close(bank.run(every, of).reshape(found.shape), found)


def test_dense_layers_give_what_they_take_beside_their_states() -> None:
    torch.manual_seed(0)
    block = LstmConfig(width=WIDTH, layers=2, pool="none", dense=True).build(InputShape(dims=(None, SIZE)))
    states = torch.randn(2, 5, SIZE)
    result, mask = block(states), torch.ones(2, 5, dtype=torch.bool)
    first = block.layers[0](states, mask)
    assert result.shape == (2, 5, SIZE + 2 * WIDTH)
    torch.testing.assert_close(result[..., : SIZE + WIDTH], torch.cat([states, first], dim=-1))
    torch.testing.assert_close(
        result[..., SIZE + WIDTH :], block.layers[1](result[..., : SIZE + WIDTH], mask)
    )
    with pytest.raises(ValidationError, match="dense: is for sequences; set pool: none"):
        LstmConfig(width=WIDTH, dense=True)


def test_words_of_one_spelling_are_read_once() -> None:
    rows = torch.randint(0, 3, (200, 4))
    first, kind = _distinct(rows)
    assert len(first) == len({tuple(row) for row in rows.tolist()}) < 200
    assert torch.equal(rows[first][kind], rows)
    # Two rows of one number: a (1 + 1) (a + 2) + a = (a + 3) a + a (a + 2)
    rows = torch.tensor([[0, 1], [_ODD + 2, 0]])
    first, kind = _distinct(rows)
    assert torch.equal(rows[first][kind], rows)


def test_dropout_drops_its_share_and_scales_the_rest() -> None:
    torch.manual_seed(0)
    states, mask = torch.ones(50, 20, 7), torch.ones(50, 20, dtype=torch.bool)
    mask[:, 15:] = False
    dropout = Dropout(0.3)
    result = dropout(states, mask)
    inside = result[:, :15]
    assert not result[:, 15:].any()
    assert inside.mean().item() == pytest.approx(1, abs=0.03)
    assert (inside == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    torch.testing.assert_close(inside.unique(), torch.tensor([0, 1 / 0.7]), rtol=1e-4, atol=0)
    assert not torch.equal(dropout(states, mask), result)
    torch.testing.assert_close(dropout.eval()(states, mask), states * mask.unsqueeze(-1))


def test_nothing_is_dropped_at_a_rate_of_0() -> None:
    states = torch.randn(3, 4, 2)
    assert torch.equal(Dropout(0.0)(states, torch.ones(3, 4, dtype=torch.bool)), states)
