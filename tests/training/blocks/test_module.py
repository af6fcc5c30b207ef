"""Modules by import path: what is taken, what is refused, and that they train and resume as others do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.making import run_config

from coterie.runtime.errors import ConfigError
from coterie.training import load_run, train
from coterie.training.bank import Bank
from coterie.training.blocks import InputShape, ModuleConfig

NETS = "tests.training.blocks.nets"
VECTORS = InputShape(dims=(4,))


def config(name: str, **arguments: Any) -> ModuleConfig:
    return ModuleConfig(path=f"{NETS}:{name}", arguments=arguments)


def test_a_class_is_made_with_its_arguments() -> None:
    block = config("Encoder", width=3).build(VECTORS)
    assert block(torch.zeros(2, 4)).shape == (2, 3)
    assert block.training


def test_parameters_that_need_no_gradient_are_constants() -> None:
    bank = Bank(lambda: config("Encoder", width=3).build(VECTORS), 2)
    assert {name.replace("/", ".") for name in bank.weights} == {
        "module.layer.weight",
        "module.layer.bias",
        "module.norm.weight",
        "module.norm.bias",
    }
    assert set(bank.constants) == {"module.projection.weight", "module.offset"}


def test_the_check_leaves_the_seed_alone() -> None:
    torch.manual_seed(0)
    config("Encoder", width=3).build(VECTORS)
    built = torch.get_rng_state()
    torch.manual_seed(0)
    from tests.training.blocks.nets import Encoder

    Encoder(3)
    assert torch.equal(torch.get_rng_state(), built)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (ModuleConfig(path="no_such_package:Net"), "cannot be imported .*PYTHONPATH"),
        (config("Encodr", width=3), "cannot be imported"),
        (ModuleConfig(path=f"{NETS}:torch.pi"), "is a float"),
        (ModuleConfig(path="builtins:dict"), "makes a dict"),
        (config("Encoder", wdth=3), "cannot be made with them .*wdth"),
        (config("Encoder", width=3, size=5), "cannot take"),
        (config("normalised", size=4), "1 is a BatchNorm1d"),
        (config("Mixing"), "depends on the rows beside it"),
        (config("Twice"), "gives tuple"),
    ],
)
def test_what_cannot_be_a_block_is_refused(block: ModuleConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        block.build(VECTORS)


def test_it_trains_and_is_read_again_like_any_block(tmp_path: Path) -> None:
    block = {"kind": "module", "path": f"{NETS}:Encoder", "arguments": {"width": 5, "size": 6}}
    stages = [{"kind": "cluster", "clusters": 2, "warmup": 0, "block": block}]
    run = train(run_config(stages, epochs=2), tmp_path / "run", report=False)
    again = load_run(tmp_path / "run").model
    weights = run.model.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in again.state_dict().items())
    constants = run.model.cluster_stages()[0].bank.constants
    assert torch.equal(constants["module.offset"], torch.ones(5))
