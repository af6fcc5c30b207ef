from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console

from coterie.runtime.tasks import TaskSpec
from coterie.training import ConsoleWatcher
from coterie.training.loop.history import History, read_history

TASKS = [TaskSpec(name=name, kind="classification", labels=("no", "yes")) for name in ("one", "two")]


def record(epoch: int, **more: object) -> dict[str, object]:
    return {"epoch": epoch, "train": {"loss": 1.5 / epoch}, "stages": {}, "assignments": {}, **more}


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text(json.dumps(record(1)) + "\n" + json.dumps(record(2))[:-4])
    assert read_history(tmp_path) == [record(1)]


def test_a_history_goes_on_from_the_epoch_of_the_checkpoint(tmp_path: Path) -> None:
    for keep, epochs in ((0, (1, 2, 3)), (1, (2,))):
        history = History(tmp_path, keep=keep)
        for epoch in epochs:
            history.add(record(epoch))
        history.close()
    assert read_history(tmp_path) == [record(1), record(2)]


def test_a_watcher_prints_a_line_an_epoch_where_there_is_no_terminal() -> None:
    text = io.StringIO()
    watcher = ConsoleWatcher(Console(file=text, width=200))
    watcher.start(epochs=2, batches=1, done=0, tasks=TASKS)
    for epoch in (1, 2):
        watcher.batch(loss=0.5, density=2.25)
        stages = {"experts": {"density": 2.25}, "layer": {"moved": 3}}
        dev = {"loss": 0.25, "metric": 0.875, "tasks": {"one": {"accuracy": 1.0}, "two": {"accuracy": 0.75}}}
        watcher.epoch(record(epoch, stages=stages, dev=dev, best=epoch == 2))
    watcher.end()
    first, second, _, *tasks = text.getvalue().strip().splitlines()
    assert "lowest two 0.7500" in first
    assert " ".join(" ".join(tasks).split()) == "two 0.7500 one 1.0000"
    for part in ("epoch   1", "loss 1.5000", "metric 0.8750", "experts density 2.25", "layer moved 3"):
        assert part in first
    assert "best" in second
    assert "best" not in first


def test_a_bar_shows_loss_density_and_metric_on_a_terminal() -> None:
    text = io.StringIO()
    watcher = ConsoleWatcher(Console(file=text, width=200, force_terminal=True))
    watcher.start(epochs=1, batches=2, done=0, tasks=TASKS)
    watcher.epoch(record(1, dev={"loss": 0.25, "metric": 0.875, "tasks": {}}))
    watcher.batch(loss=0.5, density=2.25)
    watcher.end()
    assert "loss 0.5000 density 2.25 dev 0.8750" in text.getvalue()
