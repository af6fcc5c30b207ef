"""``clusters: auto`` chooses K on dev; what compares tasks can be chosen too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from tests.training.clusters import stage_of
from tests.training.making import LINEAR, Killer, StopError, model_of, no_moments, run_config, tasks
from tests.training.runs import history
from torch import Tensor

from coterie.runtime.errors import ConfigError, TrainingError
from coterie.training import Watcher, load_data, train
from coterie.training.loop.ranks import Ranks
from coterie.training.loop.trainer import Trainer
from coterie.training.stages import ClusterStage

RANKS = Ranks(torch.device("cpu"), rank=0, world=2)
DATA = {"train_rows": 120, "dev_rows": 40, "tasks": 8, "clusters": [3], "seed": 1}
AUTO = {"kind": "cluster", "name": "layer", "clusters": "auto", "warmup": 2, "block": LINEAR}


def losses_at(stage: ClusterStage, best: Tensor) -> Tensor:
    """Dev losses of a model that computes with the stage's centroids: their distance from the best ones."""
    return ((stage.centers[stage.labels] - best) ** 2).sum(dim=1)


def test_the_number_of_clusters_that_dev_asks_for_is_chosen() -> None:
    truth = [0, 1, 2, 3] * 4
    stage = stage_of(truth, clusters=None, noise=0.05, warmup=1)
    best = torch.stack([stage.bank.flat()[number::4].mean(0) for number in range(4)])[truth]
    stage.settle(0, no_moments(), lambda: losses_at(stage, best))
    assert not stage.clustered
    stage.settle(1, no_moments(), lambda: losses_at(stage, best))
    assert adjusted_rand_score(truth, stage.labels) == 1.0
    assert stage.centers.shape[0] == 4
    report = stage.report()
    assert report["dev_loss_of_4"] < report["dev_loss_of_3"]
    labels = stage.labels.clone()
    stage.after_step(1, 0, no_moments())
    stage.settle(1, no_moments(), lambda: pytest.fail("it was chosen already"))
    assert torch.equal(stage.labels, labels)


def test_no_more_than_the_largest_number_is_tried() -> None:
    stage = stage_of([0, 1, 2, 3] * 4, clusters=None, max_clusters=3, warmup=1)
    best = stage.bank.flat().clone()
    stage.settle(1, no_moments(), lambda: losses_at(stage, best))
    assert len(stage.centers) == 3
    assert set(stage.tried) == {1, 2, 3}


def test_without_dev_losses_there_is_no_number_of_clusters() -> None:
    with pytest.raises(TrainingError, match="clusters: auto is decided by settle"):
        stage_of(clusters=None).freeze_assignment()


@pytest.mark.slow
@pytest.mark.parametrize("by", ["weights", "function"])
def test_a_training_chooses_logs_plans_and_resumes_the_number(by: str, tmp_path: Path) -> None:
    config = run_config([{**AUTO, "by": by, "freeze_after": 5}], data=DATA, epochs=7, batch_size=32)
    run = train(config, tmp_path / "whole")
    truth = load_data(config.data).truth
    assert truth is not None
    layer = run.model.plan().stage("layer")
    assert len(layer.blocks) == 3
    assert adjusted_rand_score(truth.assignments[0], layer.assignment()) == 1.0
    records = [record["stages"].get("layer", {}) for record in history(tmp_path / "whole")]
    tried = [{name for name in record if name.startswith("dev_loss_of_")} for record in records]
    assert [bool(each) for each in tried] == [False, False, True, False, False, False, False]
    assert {"dev_loss_of_1", "dev_loss_of_3"} <= tried[2]
    with pytest.raises(StopError):
        train(config, tmp_path / "killed", watcher=Killer(4 * 30 + 3))
    train(config, tmp_path / "killed")
    name = "best.safetensors"
    assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert history(tmp_path / "killed") == history(tmp_path / "whole")


@pytest.mark.slow
def test_tasks_are_grouped_by_their_gradients_and_a_killed_training_goes_on(tmp_path: Path) -> None:
    stages = [{**AUTO, "clusters": 3, "by": "gradients"}]
    config = run_config(stages, data=DATA, epochs=5, batch_size=32)
    run = train(config, tmp_path / "whole")
    truth = load_data(config.data).truth
    assert truth is not None
    layer = run.model.plan().stage("layer")
    assert adjusted_rand_score(truth.assignments[0], layer.assignment()) == 1.0
    assert run.model.cluster_stages()[0].frozen
    with pytest.raises(StopError):
        train(config, tmp_path / "killed", watcher=Killer(30 + 3))
    train(config, tmp_path / "killed")
    assert history(tmp_path / "killed") == history(tmp_path / "whole")


def test_several_processes_are_refused_where_each_would_see_a_part(tmp_path: Path) -> None:
    config = run_config([{**AUTO, "by": "function"}], data=DATA)
    data = load_data(config.data)
    model = model_of([{**AUTO, "by": "function"}], data.tasks)
    with pytest.raises(ConfigError, match="stage 'layer' compares tasks by their function"):
        Trainer(config, data, model, tmp_path, Watcher(), ranks=RANKS)


@pytest.mark.parametrize(
    ("options", "mistake"),
    [
        ({"by": "gradients"}, "clusters: auto compares centroids on dev"),
        ({"warmup": 0}, "warmup: is 0, but tasks have to train"),
        ({"clusters": 2, "by": "gradients", "warmup": 0}, "warmup: is 0, but tasks have to train"),
        ({"clusters": 2, "by": "gradients", "alike": False}, "alike: is false, but gradients"),
        ({"clusters": 2, "max_clusters": 3}, "max_clusters: is for clusters: auto"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ConfigError, match=mistake):
        model_of([{**AUTO, **options}], tasks(4))
