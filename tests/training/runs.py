"""A small training with everything that has a state, and what its history says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.training.making import LINEAR, run_config

from coterie.training import RunConfig

DROPPED = {**LINEAR, "dropout": 0.2}
CLUSTER = {"kind": "cluster", "name": "layer", "clusters": 2, "warmup": 1, "freeze_after": 4, "block": LINEAR}
GATED = {"kind": "gated", "name": "experts", "experts": 3, "density_warmup": 3, "block": DROPPED}
STAGES = [{"kind": "hard", "name": "trunk", "block": DROPPED}, GATED, CLUSTER]


def config_of(stages: list[dict[str, Any]] = STAGES, **trainer: Any) -> RunConfig:
    """Everything that has a state: dropout, gates, shadow weights, a freeze in the middle, a schedule."""
    options = {"epochs": 6, "schedule": "linear", "optimizer": "adamw", "weight_decay": 0.01}
    return run_config(stages, **{**options, **trainer})


def history(folder: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]
