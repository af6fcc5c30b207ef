from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, r2_score, roc_auc_score
from tests.training.making import task
from torch import nn

from coterie.training.loop.losses import QuestionLoss
from coterie.training.loop.metrics import task_metrics

NAN = float("nan")
SPECS = [
    task("two", width=2),
    task("four", width=4),
    task("labels", "multilabel", 3),
    task("numbers", "regression", 2),
]
SCALE = torch.tensor([[1.0] * 4, [1.0] * 4, [1.0] * 4, [2.0, 0.5, 1.0, 1.0]])


def scores_of(questions: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(questions, 4, requires_grad=True)


def test_each_question_is_compared_by_its_tasks_kind() -> None:
    scores = scores_of(5)
    target = torch.tensor(
        [[1, NAN, NAN], [3, NAN, NAN], [1, 0, 1], [2.5, -1, NAN], [0, NAN, NAN]], dtype=torch.float32
    )
    losses, labelled = QuestionLoss(SPECS, SCALE)(scores, target, torch.tensor([0, 1, 2, 3, 1]))
    assert labelled.all()
    wanted = torch.stack(
        [
            nn.functional.cross_entropy(scores[:1, :2], torch.tensor([1])),
            nn.functional.cross_entropy(scores[1:2], torch.tensor([3])),
            nn.functional.binary_cross_entropy_with_logits(scores[2, :3], target[2]),
            (((scores[3, 0] - 2.5) / 2) ** 2 + ((scores[3, 1] + 1) / 0.5) ** 2) / 2,
            nn.functional.cross_entropy(scores[4:], torch.tensor([0])),
        ]
    )
    torch.testing.assert_close(losses, wanted)


def test_missing_labels_are_left_out_of_a_questions_mean() -> None:
    scores = scores_of(2)
    target = torch.tensor([[1, NAN, 0], [NAN, 4.0, NAN]])
    losses, labelled = QuestionLoss(SPECS, SCALE)(scores, target, torch.tensor([2, 3]))
    assert labelled.all()
    first = nn.functional.binary_cross_entropy_with_logits(scores[0, [0, 2]], torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(losses, torch.stack([first, ((scores[1, 1] - 4) / 0.5) ** 2]))
    losses.sum().backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert scores.grad[0, 1] == 0
    assert scores.grad[1, 0] == 0


@pytest.mark.parametrize("number", range(4))
def test_a_question_without_any_label_contributes_nothing(number: int) -> None:
    scores = scores_of(2)
    target = torch.full((2, 3), NAN)
    target[1] = torch.tensor([1.0, 0.0, 1.0])
    losses, labelled = QuestionLoss(SPECS, SCALE, label_smoothing=0.1)(
        scores, target, torch.tensor([number] * 2)
    )
    assert labelled.tolist() == [False, True]
    assert losses[0] == 0
    losses.sum().backward()
    assert scores.grad is not None
    assert torch.equal(scores.grad[0], torch.zeros(4))
    assert torch.isfinite(scores.grad).all()
    assert scores.grad[1].abs().sum() > 0


def test_scores_past_a_tasks_own_width_do_not_matter() -> None:
    scores = scores_of(3).detach()
    target = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.3, 0.4]])
    number = torch.tensor([0, 2, 3])
    loss = QuestionLoss([*SPECS[:2], task("labels", "multilabel", 2), SPECS[3]], SCALE, label_smoothing=0.2)
    before, _ = loss(scores, target, number)
    scores[:, 2:] = 1e6
    after, _ = loss(scores, target, number)
    assert torch.equal(before, after)


def test_label_smoothing_is_torchs() -> None:
    scores = scores_of(2)
    losses, _ = QuestionLoss(SPECS, SCALE, label_smoothing=0.3)(
        scores, torch.tensor([[1.0], [2.0]]), torch.tensor([0, 1])
    )
    narrow = nn.functional.cross_entropy(scores[:1, :2], torch.tensor([1]), label_smoothing=0.3)
    wide = nn.functional.cross_entropy(scores[1:], torch.tensor([2]), label_smoothing=0.3)
    torch.testing.assert_close(losses, torch.stack([narrow, wide]))


def test_no_questions_have_no_losses() -> None:
    losses, labelled = QuestionLoss(SPECS, SCALE)(
        torch.zeros(0, 4), torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)
    )
    assert losses.shape == labelled.shape == (0,)


# ---- metrics


def test_accuracy_is_sklearns() -> None:
    generator = np.random.default_rng(0)
    scores = generator.standard_normal((50, 4)).astype(np.float32)
    target = generator.integers(0, 4, (50, 1)).astype(np.float32)
    found = task_metrics(SPECS[1], scores, target)
    assert found["accuracy"] == pytest.approx(accuracy_score(target[:, 0], scores.argmax(1)))
    target[:10] = NAN
    found = task_metrics(SPECS[1], scores, target)
    assert found["accuracy"] == pytest.approx(accuracy_score(target[10:, 0], scores[10:].argmax(1)))


def test_the_area_under_the_curve_is_sklearns_over_known_labels() -> None:
    generator = np.random.default_rng(1)
    scores = generator.standard_normal((60, 3)).astype(np.float32)
    target = (generator.random((60, 3)) < 0.4).astype(np.float32)
    target[generator.random((60, 3)) < 0.3] = NAN
    found = task_metrics(SPECS[2], scores, target)
    areas, right = [], []
    for column in range(3):
        known = ~np.isnan(target[:, column])
        areas.append(roc_auc_score(target[known, column], scores[known, column]))
        right.extend((scores[known, column] > 0) == target[known, column])
    assert found["roc_auc"] == pytest.approx(np.mean(areas))
    assert found["accuracy"] == pytest.approx(np.mean(right))


def test_explained_variance_is_sklearns_over_known_numbers() -> None:
    generator = np.random.default_rng(2)
    target = generator.standard_normal((40, 2)).astype(np.float32)
    scores = (target + 0.5 * generator.standard_normal((40, 2))).astype(np.float32)
    target[generator.random((40, 2)) < 0.3] = NAN
    found = task_metrics(SPECS[3], scores, target)
    known = ~np.isnan(target)
    wanted = [r2_score(target[known[:, c], c], scores[known[:, c], c]) for c in range(2)]
    assert found["r2"] == pytest.approx(np.mean(wanted), rel=1e-5)
    assert found["rmse"] == pytest.approx(np.sqrt(((scores - target)[known] ** 2).mean()), rel=1e-5)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_metric_that_is_not_defined_is_left_out(spec: object) -> None:
    nothing = np.zeros((0, 4), dtype=np.float32)
    assert task_metrics(spec, nothing, nothing) == {}
    unknown = np.full((3, 4), NAN, dtype=np.float32)
    assert task_metrics(spec, np.zeros((3, spec.width), dtype=np.float32), unknown) == {}


def test_one_class_only_has_no_area_and_a_constant_target_no_explained_variance() -> None:
    same = np.ones((5, 3), dtype=np.float32)
    assert SPECS[2].metric not in task_metrics(SPECS[2], np.zeros((5, 3), np.float32), same)
    assert SPECS[3].metric not in task_metrics(SPECS[3], np.zeros((5, 2), np.float32), same)
