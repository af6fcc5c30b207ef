"""Comparing bundles: what changed, in which stage, by how much."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from coterie.runtime import InvalidInputError, compare_bundles, load_bundle

from .handmade import HIDDEN, TASKS, HandMade, write_bundle


@pytest.fixture
def made(tmp_path: Path) -> HandMade:
    return write_bundle(tmp_path / "before")


def test_a_bundle_does_not_differ_from_itself(made: HandMade) -> None:
    bundle = load_bundle(made.path)
    changes = compare_bundles(bundle, bundle, made.inputs(5))
    assert [change.task for change in changes] == [task.name for task in TASKS]
    for change in changes:
        assert change.change == "same"
        assert not change.stages
        assert change.answers is not None
        assert (change.answers.inputs, change.answers.flipped, change.answers.largest) == (5, 0, 0)


def test_a_changed_centroid_changes_the_tasks_of_its_cluster(made: HandMade, tmp_path: Path) -> None:
    weights = {name: array.copy() for name, array in made.weights.items()}
    weights["clusters.weight"][0] *= 1.5
    after = write_bundle(tmp_path / "after", weights=weights)
    changes = compare_bundles(load_bundle(made.path), load_bundle(after.path), made.inputs(40))
    by_task = {change.task: change for change in changes}
    moved = [task for task, change in by_task.items() if change.change == "changed"]
    assert moved == ["topic", "price"]
    (stage,) = by_task["topic"].stages
    assert stage.stage == "clusters"
    assert stage.weights == pytest.approx(0.5, rel=1e-5)
    answers = by_task["topic"].answers
    assert answers is not None
    before, now = (np.asarray(each.probabilities("topic", made.inputs(40))) for each in (made, after))
    assert answers.largest == pytest.approx(np.abs(before - now).max(), abs=1e-5)
    assert answers.flipped == pytest.approx((before.argmax(1) != now.argmax(1)).mean())


def test_inputs_that_a_bundle_does_not_take_are_refused(made: HandMade) -> None:
    bundle = load_bundle(made.path)
    with pytest.raises(InvalidInputError, match="the first bundle does not take these inputs"):
        compare_bundles(bundle, bundle, np.zeros((2, HIDDEN + 9)))
