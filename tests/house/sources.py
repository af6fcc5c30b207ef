"""Where the packages lie, in the tree or in the wheel, and what their modules import."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("runtime", "cli", "training", "exporter")


@dataclass(frozen=True)
class Import:
    """One import: the module's full name, and whether it happens as soon as the importing module is read."""

    module: str
    line: int
    at_import: bool


@dataclass(frozen=True)
class Module:
    """One module of ours."""

    name: str
    path: Path

    @property
    def package(self) -> str:
        """The second part of its name: ``runtime``, ..."""
        return self.name.split(".")[1]

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"), str(self.path))

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        return tuple(_imports(self.tree, self.name, self.path.name == "__init__.py"))


def folder_of(package: str) -> Path:
    """Return the folder of ``coterie.<package>`` without importing it."""
    spec = find_spec(f"coterie.{package}")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(next(iter(spec.submodule_search_locations)))


def modules() -> list[Module]:
    """Return every module of the four packages."""
    found = []
    for package in PACKAGES:
        folder = folder_of(package)
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder.parent).with_suffix("").parts
            if parts[-1] == "__init__":
                parts = parts[:-1]
            found.append(Module(".".join(("coterie", *parts)), path))
    return found


def _imports(tree: ast.Module, name: str, is_package: bool) -> Iterator[Import]:
    waiting: list[tuple[ast.AST, bool]] = [(tree, True)]
    while waiting:
        node, at_import = waiting.pop()
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, at_import)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = name.split(".") if is_package else name.split(".")[:-1]
                above = above[: len(above) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            for alias in node.names:
                # What is taken may itself be a module: the longer name says more, and both begin alike.
                longer = f"{base}.{alias.name}"
                yield Import(longer if _is_ours(longer) else base, node.lineno, at_import)
        inside = at_import and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        waiting += [(child, inside) for child in ast.iter_child_nodes(node)]


def _is_ours(name: str) -> bool:
    """Tell whether a name below ``coterie`` is a module, by the files."""
    parts = name.split(".")
    if parts[0] != "coterie" or len(parts) < 3 or parts[1] not in PACKAGES:
        return parts[0] == "coterie" and len(parts) == 2 and parts[1] in PACKAGES
    path = folder_of(parts[1]).joinpath(*parts[2:])
    return path.is_dir() or path.with_suffix(".py").is_file()
