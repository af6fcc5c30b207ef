from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from coterie.cli.main import app
from coterie.runtime import Engine, TaskSpec, load
from coterie.runtime.serving import Addresses, running_server
from coterie.training import Run, load_run
from coterie.training.several import Tensors, each, only, take

from .projects import PROJECTS

TEXTS = {
    "texts": ["a fine gripping books", "awful flat music it", "the sturdy tools", "never seen words"],
    "taggings": ["the cat sees", "Ann Lee sold the house", "unheard", "Zoë sees dogs"],
    "listings": ["a lovely bright flat", "damp", "a quiet flat near the dark town", "unheard of"],
}
"""Each project's texts; in ``listings`` they are one of two inputs."""
ROWS = 7
T = TypeVar("T")


def coterie(*arguments: object) -> str:
    """Run a command in this process; return what it printed."""
    result = CliRunner().invoke(app, [str(word) for word in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def coterie_process(*arguments: object, **more: Any) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "coterie.cli", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **more,
    )


@dataclass(frozen=True)
class Made:
    """A project that was trained and exported by the commands."""

    name: str
    config: Path
    run_folder: Path
    bundle: Path

    @cached_property
    def run(self) -> Run:
        return load_run(self.run_folder)

    @cached_property
    def engine(self) -> Engine:
        return load(self.bundle, threads=1)

    @property
    def tasks(self) -> tuple[TaskSpec, ...]:
        return self.run.data.tasks

    @cached_property
    def raw(self) -> dict[str, Any]:
        """Some inputs by name as a client gives them: each is texts, or an array [R, ...]."""
        texts = TEXTS.get(self.name)
        rows = ROWS if texts is None else len(texts)
        samples = take(self.run.samples(), slice(rows))
        given = zip(self.run.data.inputs, each(samples), strict=True)
        return {spec.name: texts if spec.dtype == "int64" else array for spec, array in given}

    @property
    def inputs(self) -> Any:
        """The same as an engine takes them: the only input by itself, several by name."""
        return self.raw if len(self.raw) > 1 else next(iter(self.raw.values()))

    @cached_property
    def feeds(self) -> dict[str, np.ndarray[Any, Any]]:
        """The same as the graphs take them, each [R, ...]."""
        encoder = self.engine.bundle.text
        return {
            name: encoder.encode(values)
            if isinstance(values, list) and encoder
            else np.ascontiguousarray(values)
            for name, values in self.raw.items()
        }

    @property
    def tensors(self) -> Tensors:
        """The same as the torch model takes them."""
        return only(tuple(torch.from_numpy(array) for array in self.feeds.values()))

    @property
    def rows(self) -> int:
        return len(next(iter(self.feeds.values())))

    @cached_property
    def expected(self) -> dict[str, np.ndarray[Any, Any]]:
        """Each task's scores [R, C_task], taggings' [R, L, C_task], by the torch model as it was trained."""
        row = torch.arange(self.rows)
        with torch.no_grad():
            return {
                task.name: self.run.model(self.tensors, row, torch.full_like(row, at)).numpy()[
                    ..., : task.width
                ]
                for at, task in enumerate(self.tasks)
            }


class Lazy(dict[str, T]):
    """Makes what is asked for when it is first asked for: no file of tests needs every project."""

    def __init__(self, make: Callable[[str], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, name: str) -> T:
        self[name] = self._make(name)
        return self[name]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    def make(name: str) -> Made:
        folder = tmp_path_factory.mktemp(name)
        config, run, bundle = PROJECTS[name](folder), folder / "run", folder / "bundle"
        coterie("train", config, "--run", run, "--quiet")
        coterie("export", run, bundle)
        return Made(name, config, run, bundle)

    return Lazy(make)


@pytest.fixture(scope="session")
def served(made: dict[str, Made]) -> Iterator[dict[str, Addresses]]:
    with ExitStack() as stack:
        yield Lazy(lambda name: stack.enter_context(running_server(made[name].bundle, threads=1)))


@pytest.fixture(params=list(PROJECTS))
def project(request: pytest.FixtureRequest, made: dict[str, Made]) -> Made:
    return made[request.param]


@pytest.fixture
def address(project: Made, served: dict[str, Addresses]) -> Addresses:
    return served[project.name]
