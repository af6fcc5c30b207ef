"""A training that was killed goes on."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from .conftest import coterie_process
from .projects import features

EPOCHS = 20


def train(config: Path, run: Path, *, kill_after: int | None = None) -> int:
    """Train; with ``kill_after``, kill the process once so many epochs are done. Return the exit code."""
    process = coterie_process("train", config, "--run", run, "--quiet", "--trainer.epochs", EPOCHS)
    while kill_after is not None and process.poll() is None:
        if epochs_done(run) >= kill_after:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.005)
    output, _ = process.communicate(timeout=120)
    assert process.returncode in (0, -signal.SIGKILL), output
    return process.returncode


def epochs_done(run: Path) -> int:
    history = run / "history.jsonl"
    return len(history.read_text(encoding="utf-8").splitlines()) if history.is_file() else 0


def test_a_killed_training_resumes_and_ends_with_the_same_weights(tmp_path: Path) -> None:
    config = features(tmp_path)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(config, whole) == 0
    assert train(config, killed, kill_after=4) == -signal.SIGKILL
    assert 4 <= epochs_done(killed) < EPOCHS
    assert not (killed / "metrics.json").exists()
    assert train(config, killed) == 0
    for name in ("best.safetensors", "plan.json", "metrics.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
