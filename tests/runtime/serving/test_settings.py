from __future__ import annotations

from pathlib import Path

import pytest

from coterie.runtime import ConfigError
from coterie.runtime.serving import Settings


def test_settings_survive_the_environment() -> None:
    settings = Settings(
        bundle=Path("/somewhere"), threads=2, grpc_port=3001, max_rows=7, task_weights={"a=b": 2.5}
    )
    assert Settings.from_environment(settings.environment()) == settings


def test_an_empty_variable_is_not_set() -> None:
    assert Settings.from_environment({"COTERIE_BUNDLE": "", "COTERIE_THREADS": ""}) == Settings()


@pytest.mark.parametrize("weights", ["{", "[]", '{"a": 0}', '{"a": -1}', '{"a": "x"}', '{"a": 1e999}'])
def test_wrong_weights_are_refused(weights: str) -> None:
    with pytest.raises(ConfigError, match="COTERIE_TASK_WEIGHTS"):
        Settings.from_environment({"COTERIE_TASK_WEIGHTS": weights})


def test_all_wrong_variables_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.from_environment({"COTERIE_THREADS": "many", "COTERIE_GRPC_PORT": "99999"})
    assert [problem.split(":")[0] for problem in caught.value.problems] == [
        "COTERIE_THREADS",
        "COTERIE_GRPC_PORT",
    ]
