from __future__ import annotations

import pytest

from coterie.runtime.batching._pace import Pace


def learnt(start: float, each: float, sizes: list[int], *, target: float = 0.05) -> Pace:
    pace = Pace(target=target, most=4096)
    for rows in sizes:
        pace.learn(rows, start + each * rows)
    return pace


def test_what_a_run_and_a_row_cost_is_learnt() -> None:
    pace = learnt(0.004, 0.0001, [1, 8, 64, 3, 200, 17])
    assert pace.line() == pytest.approx((0.004, 0.0001))
    assert pace.seconds(100) == pytest.approx(0.004 + 100 * 0.0001)


def test_a_batch_has_no_more_rows_than_fit_the_target_and_are_worth_the_wait() -> None:
    sizes = [1, 8, 64, 3, 200, 17]
    assert learnt(0.004, 0.0001, sizes, target=0.01).limit() == pytest.approx(60, abs=1)
    assert learnt(0.004, 0.0001, sizes).limit() == 320
    assert learnt(0.00001, 0.00001, sizes).limit() == 800  # eight milliseconds are no wait
    pace = learnt(0.004, 0.0001, sizes)
    assert pace.seconds(640) == pytest.approx(2 * 0.004 + 640 * 0.0001)
    for _ in range(200):
        pace.learn(320, 0.036)
    assert pace.limit() == 320  # runs of one size do not tell what they take beside their rows


def test_a_machine_that_became_slower_is_noticed() -> None:
    pace = learnt(0.004, 0.0001, [1, 8, 64, 3, 200, 17])
    for rows in [1, 30, 200, 60] * 40:
        pace.learn(rows, 0.004 + 0.0004 * rows)
    assert pace.limit() == pytest.approx(80, abs=3)


def test_runs_of_one_size_are_no_line_and_still_give_a_limit() -> None:
    assert learnt(0.0, 0.001, [10, 10, 10]).limit() == 50


def test_before_any_run_and_on_a_slow_model_a_batch_is_allowed() -> None:
    assert Pace(target=0.05, most=4096).limit() == 256
    assert learnt(0.0, 1.0, [1, 2, 3]).limit() == 32
    assert learnt(0.0, 1e-9, [1, 2, 3]).limit() == 4096
