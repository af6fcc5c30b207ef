"""Every third-party import is declared where it is needed, and nothing is declared that is not needed."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import packages_distributions

import pytest
import yaml

from coterie.cli import _extras

from .sources import ROOT, Module, modules

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
BESIDE = {
    "httptools": "the HTTP server takes it where it finds it",
    "uvloop": "the HTTP server takes it where it finds it",
    "tensorboard": "torch.utils.tensorboard imports it",
    "onnxscript": "torch.onnx imports it",
}
"""Needed, though no line of ours imports it."""
OPTIONAL = {"demo": {"tritonclient"}}
"""Used where it is there, and done without where it is not."""

OPTIONS = ["vectors", "balance", "hf"]
"""Extras of single options of a training: what needs one says so itself."""

PARTS = {
    "runtime": [],
    "signing": ["sign"],
    "cli": [],
    "bench": ["serve", "train"],
    "demo": ["serve", "train", "export"],
    "serving": ["serve"],
    "training": ["train", *OPTIONS],
    "exporter": ["train", "export"],
    "telemetry": ["serve", "otel"],
}
SHARED = {
    "google": "protobuf",
    "google.rpc": "googleapis-common-protos",
    "opentelemetry": "opentelemetry-api",
    "opentelemetry.exporter": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry.sdk": "opentelemetry-sdk",
}
"""Namespaces that several distributions share, and whose each part is."""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements: Iterable[str]) -> set[str]:
    return {normal(re.split(r"[\s\[<>=!~;]", each, maxsplit=1)[0]) for each in requirements} - {"coterie"}


@cache
def owners() -> dict[str, list[str]]:
    """Return the distributions of each top-level module, or part of a shared one."""
    shared = {name: [owner] for name, owner in SHARED.items()}
    return {**packages_distributions(), **shared, "pydantic_core": ["pydantic"]}


def part_of(module: Module) -> str:
    if module.name.startswith("coterie.cli._demo"):
        return "demo"
    if module.name.startswith("coterie.cli._bench"):
        return "bench"
    if module.name == "coterie.runtime.bundle._signature":
        return "signing"
    if module.name == "coterie.runtime.serving.observing._telemetry":
        return "telemetry"
    is_server = module.name.startswith(("coterie.runtime.serving", "coterie.runtime.service"))
    return "serving" if is_server else module.package


def distributions(part: str) -> dict[str, str]:
    """Return the distributions that a part imports, each with one place where it does."""
    found = {}
    for module in (each for each in modules() if part_of(each) == part):
        for each in module.imports:
            second = ".".join(each.module.split(".")[:2])
            top = second if second in SHARED else each.module.split(".")[0]
            if top != "coterie" and top not in sys.stdlib_module_names:
                (owner,) = {normal(name) for name in owners()[top]}
                found[owner] = f"{module.name}:{each.line}"
    for name in OPTIONAL.get(part, ()):
        found.pop(name, None)
    return found


@pytest.mark.parametrize("part", PARTS)
def test_a_part_imports_only_what_its_extra_installs(part: str) -> None:
    declared = names(PROJECT["dependencies"]).union(*(names(EXTRAS[extra]) for extra in PARTS[part]))
    assert {name: where for name, where in distributions(part).items() if name not in declared} == {}


@pytest.mark.parametrize(
    ("extra", "part"),
    [
        ("serve", "serving"),
        ("train", "training"),
        ("export", "exporter"),
        ("sign", "signing"),
        ("otel", "telemetry"),
    ],
)
def test_an_extra_installs_only_what_its_part_needs(extra: str, part: str) -> None:
    assert names(EXTRAS[extra]) - set(distributions(part)) - set(BESIDE) == set()


def test_the_base_installs_only_what_embedding_and_the_command_line_need() -> None:
    assert names(PROJECT["dependencies"]) == set(distributions("runtime")) | set(distributions("cli"))


def test_all_is_every_extra_that_runs_anywhere() -> None:
    assert EXTRAS["all"] == [f"coterie[serve,train,export,{','.join(OPTIONS)},sign,otel]"]


def test_every_dependency_has_a_version_in_the_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in pinned if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []
    assert pinned == sorted(pinned, key=str.lower)
    wanted = names(PROJECT["dependencies"]).union(*(names(EXTRAS[each]) for each in EXTRAS if each != "gpu"))
    assert wanted - names(pinned) == set()
    assert "torch==2.13.0" in pinned


def test_the_bento_installs_what_the_serve_extra_does() -> None:
    bento = yaml.safe_load((ROOT / "bentofile.yaml").read_text(encoding="utf-8"))
    assert names(bento["python"]["packages"]) == names(EXTRAS["serve"]) - {"bentoml"}
    assert bento["python"]["wheels"] == [f"dist/coterie-{PROJECT['version']}-py3-none-any.whl"]


@pytest.mark.parametrize("extra", ["serve", "train", "export"])
def test_a_missing_module_of_an_extra_is_told_as_a_missing_extra(extra: str) -> None:
    """The commands know an extra's modules by name; the list must not fall behind."""
    part = {"serve": "serving", "train": "training", "export": "exporter"}[extra]
    base = names(PROJECT["dependencies"]).union(*(names(EXTRAS[option]) for option in OPTIONS))
    listed = {module for group in _extras._PART_OF.values() for module in group}
    imported = {each.module.split(".")[0] for m in modules() if part_of(m) == part for each in m.imports}
    unknown = {
        top
        for top in imported - listed - {"coterie"} - set(sys.stdlib_module_names)
        if not base & {normal(name) for name in owners()[top]}
    }
    assert unknown == set()
