"""The dependency arrows: cli -> all, lazily; exporter -> training, runtime; training -> a part of runtime."""

from __future__ import annotations

import pytest

from .sources import Module, folder_of, modules

SHARED = {
    f"coterie.runtime.{name}" for name in ("errors", "plan", "tasks", "manifest", "text", "cells", "durable")
}
SERVERS = ("coterie.runtime.serving", "coterie.runtime.service")
LAZY = ("coterie.cli._bench", "coterie.cli._demo", "coterie.cli._render_top")
"""Parts of a command that are themselves imported only when it is called."""
NEEDS_AN_EXTRA = ("coterie.training", "coterie.exporter", *SERVERS)


def ours(module: Module) -> list[str]:
    return [each.module for each in module.imports if each.module.split(".")[0] == "coterie"]


def starts(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def of(package: str) -> list[Module]:
    return [module for module in modules() if module.package == package]


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("runtime", ("coterie.runtime",)),
        ("training", ("coterie.training", *sorted(SHARED))),
        ("exporter", ("coterie.exporter", "coterie.training", "coterie.runtime")),
    ],
)
def test_a_package_imports_only_what_its_arrows_allow(package: str, allowed: tuple[str, ...]) -> None:
    found = of(package)
    assert found
    wrong = [f"{m.name}: {name}" for m in found for name in ours(m) if not starts(name, *allowed)]
    assert wrong == []


@pytest.mark.parametrize(
    ("part", "allowed"),
    [
        ("yaml_config", ()),
        ("blocks", ("yaml_config",)),
        ("data", ("several", "yaml_config")),
        (
            "stages",
            (
                "bank",
                "blocks",
                "clustering",
                "dispatch",
                "draws",
                "frozen",
                "moments",
                "ragged",
                "similarity",
            ),
        ),
    ],
)
def test_the_maths_of_training_knows_neither_its_loop_nor_files(part: str, allowed: tuple[str, ...]) -> None:
    training = "coterie.training"
    found = [module for module in of("training") if starts(module.name, f"{training}.{part}")]
    assert found
    known = [f"{training}.{name}" for name in (part, *allowed)]
    inside = [(m.name, name) for m in found for name in ours(m) if starts(name, training)]
    assert [(module, name) for module, name in inside if not starts(name, *known)] == []


def test_the_loop_knows_nothing_of_run_folders() -> None:
    loop = [module for module in of("training") if starts(module.name, "coterie.training.loop")]
    above = [f"coterie.training.{name}" for name in ("run", "run_files", "report", "estimators", "vectors")]
    assert loop
    assert [(m.name, name) for m in loop for name in ours(m) if starts(name, *above)] == []


@pytest.mark.parametrize(
    ("part", "above"),
    [("bundle", ("engine", "batching", "store")), ("engine", ("batching", "store"))],
)
def test_a_bundle_knows_no_engine_and_an_engine_nobody_who_asks_it(part: str, above: tuple[str, ...]) -> None:
    found = [module for module in of("runtime") if starts(module.name, f"coterie.runtime.{part}")]
    unknown = (*SERVERS, *(f"coterie.runtime.{name}" for name in above))
    assert found
    assert [(m.name, name) for m in found for name in ours(m) if starts(name, *unknown)] == []


def test_a_store_knows_neither_batcher_nor_transport() -> None:
    store = [module for module in of("runtime") if starts(module.name, "coterie.runtime.store")]
    above = (*SERVERS, "coterie.runtime.batching")
    assert store
    assert [(m.name, name) for m in store for name in ours(m) if starts(name, *above)] == []


def test_the_batcher_knows_no_transport() -> None:
    batching = [module for module in of("runtime") if starts(module.name, "coterie.runtime.batching")]
    assert batching
    assert [(m.name, name) for m in batching for name in ours(m) if starts(name, *SERVERS)] == []


SERVING = "coterie.runtime.serving"
PARTS = {
    "access": (),
    "observing": (),
    "models": ("access", "observing"),
    "http": ("access", "models", "observing"),
    "grpc": ("access", "models", "observing"),
}
"""Of the server: whom each part may import, beside itself and the errors."""


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_the_server_imports_only_what_lies_below_it(part: str) -> None:
    found = [module for module in of("runtime") if starts(module.name, f"{SERVING}.{part}")]
    below = [f"{SERVING}.{name}" for name in (part, *PARTS[part], "_failures")]
    assert found
    inside = [(m.name, name) for m in found for name in ours(m) if starts(name, SERVING)]
    assert [(module, name) for module, name in inside if not starts(name, *below)] == []


def test_every_part_of_the_server_has_its_arrows() -> None:
    assert {path.parent.name for path in (folder_of("runtime") / "serving").glob("*/__init__.py")} == set(
        PARTS
    )


def test_commands_import_what_needs_an_extra_only_when_they_are_called() -> None:
    wrong = [
        f"{module.name}:{each.line}: {each.module}"
        for module in of("cli")
        if not starts(module.name, *LAZY)
        for each in module.imports
        if each.at_import and starts(each.module, *NEEDS_AN_EXTRA, *LAZY)
    ]
    assert wrong == []


def test_nobody_imports_the_command_line() -> None:
    others = [module for module in modules() if module.package != "cli"]
    assert [m.name for m in others for name in ours(m) if starts(name, "coterie.cli")] == []


def test_the_engine_is_reached_without_the_servers() -> None:
    others = [module for module in of("runtime") if not starts(module.name, *SERVERS)]
    assert [m.name for m in others for name in ours(m) if starts(name, *SERVERS)] == []


def test_coterie_is_a_namespace_that_nobody_owns() -> None:
    assert not (folder_of("runtime").parent / "__init__.py").exists()
    import coterie

    assert coterie.__file__ is None
