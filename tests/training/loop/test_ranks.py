"""Several processes train one model: real ones, over gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.training.making import LINEAR
from tests.training.runs import CLUSTER, GATED, config_of, history

from coterie.runtime.errors import ConfigError, TrainingError
from coterie.runtime.plan import SharingPlan
from coterie.training import train
from coterie.training.loop.ranks import Ranks, choose_device, join

STAGES = [{"kind": "hard", "block": LINEAR}, {**GATED, "block": LINEAR}, CLUSTER]
# The last of 3 batches has 44 of 144 inputs; a share is a quarter of a batch.
OPTIONS: dict[str, Any] = {"batch_size": 50, "accumulate": 2, "ema": 0.9, "gradient_clip": 5.0}

_TWO = """
import json, os, signal, socket, sys
from pathlib import Path
from tests.training.loop.test_ranks import OPTIONS, STAGES, config_of
from coterie.runtime.errors import TrainingError
from coterie.training import train
from coterie.training.loop import trainer

real, done = trainer.set_rates, 0

def set_rates(*arguments):
    global done
    done += 1
    if done == kill_at and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    real(*arguments)

trainer.set_rates = set_rates
for folder, kill_at in (("killed", 8), ("killed", 0), ("whole", 0)):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free.getsockname()[1]), WORLD_SIZE="2")
    children = []
    for rank in range(2):
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
        children.append(os.fork())
        if children[-1] == 0:
            try:
                train(config_of(STAGES, **OPTIONS), Path(sys.argv[1]) / folder, report=False)
            except TrainingError as error:
                print(error, flush=True)
                os._exit(2)
            os._exit(0)
    print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children], flush=True)
"""


@pytest.mark.slow
def test_two_processes_train_what_one_does_and_go_on_after_a_kill(tmp_path: Path) -> None:
    done = subprocess.run(
        # It forks the two, so that the libraries are imported once.
        [sys.executable, "-c", _TWO, str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    told, killed, resumed, whole = done.stdout.splitlines()
    assert told.startswith("another process of this training has ended")
    assert (killed, resumed, whole) == ("[2, -9]", "[0, 0]", "[0, 0]")
    assert history(tmp_path / "killed") == history(tmp_path / "whole")
    for file in ("best.safetensors", "plan.json", "metrics.json"):
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()

    alone = train(config_of(STAGES, **OPTIONS), tmp_path / "alone", report=False)
    for two, one in zip(history(tmp_path / "whole"), history(alone.folder), strict=True):
        assert two["assignments"] == one["assignments"]
        assert two["dev"]["loss"] == pytest.approx(one["dev"]["loss"], rel=1e-3)
    plan = SharingPlan.model_validate_json((tmp_path / "whole" / "plan.json").read_text())
    assert [stage.uses for stage in plan.stages] == [stage.uses for stage in alone.model.plan().stages]
    weights = load_file(tmp_path / "whole" / "best.safetensors")
    for name, tensor in load_file(alone.folder / "best.safetensors").items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-2, atol=1e-3)


def test_one_process_alone_needs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with join(torch.device("cpu")) as ranks:
        assert (ranks.first, ranks.world) == (True, 1)
        assert ranks.largest(7) == 7
        ranks.check_same([torch.zeros(3)])
    assert not torch.distributed.is_initialized()


def test_weights_that_differ_between_processes_end_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    ranks = Ranks(torch.device("cpu"), world=2)
    seen: list[torch.Tensor] = []

    def other_has(difference: float) -> None:
        def add_other(tensor: torch.Tensor) -> None:
            seen.append(tensor.clone())
            if len(seen) % 2:
                tensor += tensor + difference * (torch.arange(len(tensor)) == 3)
            else:
                tensor *= 2

        monkeypatch.setattr(torch.distributed, "all_reduce", add_other)

    other_has(0.0)
    ranks.check_same([torch.ones(3), torch.tensor(True)])
    other_has(1.0)
    with pytest.raises(TrainingError, match="weights differ"):
        ranks.check_same([torch.ones(3), torch.tensor(True)])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(
        ConfigError, match=r"trainer.device: is cuda, but torch finds no such device: use auto"
    ):
        choose_device("cuda")
