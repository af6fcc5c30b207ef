"""What a study is: systems, each with the tries it is given, protocols and seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parents[2]
SYSTEMS = Path(__file__).parent / "systems"
"""Configurations that are no presets: parts of ours by themselves, the papers' baselines with our encoder."""


@dataclass(frozen=True, kw_only=True)
class System:
    """One row of a table.

    Attributes:
        name: In file names.
        title: In tables.
        configuration: A preset, or a file of ``systems/``.
        options: What all its runs are given on the command line.
        tries: Options by name: what it may be trained with. The best on dev, with seed 0 under the first
            protocol, is what all its other runs are given.
        maker: How a run of it is made.
        protocols: By name, where not all of the study's.
        claim: Whether a claim rests on it, so that it needs every seed.
        part: Which table it stands in.
    """

    name: str
    title: str
    configuration: str = ""
    options: tuple[str, ...] = ()
    tries: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"preset": ()})
    maker: Literal["train", "linear"] = "train"
    protocols: tuple[str, ...] | None = None
    claim: bool = False
    part: str = "systems"

    @property
    def source(self) -> str:
        """What ``coterie train`` is given."""
        file = SYSTEMS / f"{self.configuration}.yaml"
        return str(file.relative_to(ROOT)) if file.is_file() else self.configuration


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Which rows are trained on, and how long.

    Attributes:
        name: In file names.
        title: In tables.
        options: What all runs under it are given on the command line.
        seeds: Of a system that a claim rests on; others have one.
        prepare: Writes the data that its runs read, from the user's file to another.
    """

    name: str
    title: str
    options: tuple[str, ...] = ()
    seeds: int = 3
    prepare: Callable[[Path, Path], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A claim: the first system is better than the second.

    Attributes:
        better: A system's name.
        worse: Another's.
        split: On which they are compared.
    """

    better: str
    worse: str
    split: str = "test"


@dataclass(frozen=True, kw_only=True)
class Study:
    """A data set, the protocols it is used with, and the systems that are compared on it.

    Attributes:
        name: Of its folder.
        title: In documents.
        description: The data's description, a YAML file of ``examples``; none where it is built in.
        paths: The options that name its files, in the order in which a user gives them.
        systems: In the order in which they are run.
        protocols: The first is the one under which tries are compared.
        splits: That are read at the end.
        groups: Sets of tasks whose mean is reported, as the tasks that are left out.
        comparisons: The claims.
        ours: The system whose learned plan is looked at.
        single: The system of one model a task, for negative transfer.
        shown: The systems whose tasks are drawn one by one.
        unit: Of the metric.
    """

    name: str
    title: str
    description: Path | None
    paths: tuple[str, ...]
    systems: tuple[System, ...]
    protocols: tuple[Protocol, ...]
    splits: tuple[str, ...] = ("test",)
    groups: Mapping[str, tuple[str, ...]]
    comparisons: tuple[Comparison, ...] = ()
    ours: str
    single: str
    shown: tuple[str, ...]
    unit: str = "accuracy in %"

    def system(self, name: str) -> System:
        """Return the system of that name, or raise ``KeyError``."""
        return {each.name: each for each in self.systems}[name]

    def protocol(self, name: str) -> Protocol:
        """Return the protocol of that name, or raise ``KeyError``."""
        return {each.name: each for each in self.protocols}[name]


@dataclass(frozen=True)
class Job:
    """One run that a study needs.

    Attributes:
        study: Whose.
        system: Which is trained.
        choice: The name of the try whose options it is given.
        protocol: What it is trained on.
        seed: Of everything random.
    """

    study: Study
    system: System
    choice: str
    protocol: Protocol
    seed: int

    @property
    def name(self) -> str:
        """Its file's name, without the ending, below the folder of all records."""
        return f"{self.study.name}/{self.system.name}.{self.choice}.{self.protocol.name}.{self.seed}"

    @property
    def options(self) -> tuple[str, ...]:
        """What ``coterie train`` is given beside the configuration, the data and the seed."""
        return (*self.system.options, *self.system.tries[self.choice], *self.protocol.options)


def tries(study: Study, system: System) -> list[Job]:
    """Return the runs among which a system's settings are chosen."""
    return [Job(study, system, name, study.protocols[0], 0) for name in system.tries]


def finals(study: Study, system: System, choice: str) -> Iterator[Job]:
    """Yield the runs that a system's row rests on, once its settings are chosen."""
    for protocol in study.protocols:
        if system.protocols is None or protocol.name in system.protocols:
            for seed in range(protocol.seeds if system.claim else 1):
                yield Job(study, system, choice, protocol, seed)
