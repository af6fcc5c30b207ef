"""Habits that can be checked: sizes, docstrings, public names, what is never called, what is shipped."""

from __future__ import annotations

import ast
import re
from importlib.metadata import version
from importlib.resources import files

import pytest

from .sources import PACKAGES, ROOT, Module, folder_of, modules

LINES = 400
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}
UNSAFE_METHODS = {("torch", "load"), ("torch", "save"), ("np", "load")}


def public_packages() -> list[Module]:
    found = [module for module in modules() if module.path.name == "__init__.py" and module.package != "cli"]
    return [module for module in found if not any(part.startswith("_") for part in module.name.split("."))]


def test_no_file_is_longer_than_fits_in_a_head() -> None:
    paths = [module.path for module in modules()]
    paths += [
        path for folder in ("tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")
    ]
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert {str(path): length for path, length in lengths.items() if length > LINES} == {}


def test_every_module_says_what_it_is_for() -> None:
    assert [module.name for module in modules() if not ast.get_docstring(module.tree)] == []


def test_nothing_is_unpickled_or_evaluated() -> None:
    wrong = []
    for module in modules():
        wrong += [
            f"{module.name}:{each.line} imports {each.module}"
            for each in module.imports
            if each.module.split(".")[0] in UNSAFE_MODULES
        ]
        for call in (node for node in ast.walk(module.tree) if isinstance(node, ast.Call)):
            match call.func:
                case ast.Name(id=name) if name in UNSAFE_CALLS:
                    wrong.append(f"{module.name}:{call.lineno} calls {name}")
                case ast.Attribute(value=ast.Name(id=owner), attr=name) if (owner, name) in UNSAFE_METHODS:
                    allowed = {"np.load": "allow_pickle", "torch.load": "weights_only"}.get(f"{owner}.{name}")
                    if not any(keyword.arg == allowed for keyword in call.keywords):
                        wrong.append(f"{module.name}:{call.lineno} calls {owner}.{name}")
    assert wrong == []


@pytest.mark.parametrize("module", public_packages(), ids=lambda module: module.name)
def test_all_lists_exactly_the_public_names(module: Module) -> None:
    listed: list[str] = []
    defined: set[str] = set()
    for node in module.tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                listed = ast.literal_eval(value)
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                defined.add(name)
            case ast.ImportFrom(module=source) if (source or "").startswith("coterie"):
                defined |= {alias.asname or alias.name for alias in node.names}
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                defined.add(node.name)
    public = {name for name in defined if not name.startswith("_")}
    assert set(listed) == public, f"{module.name}.__all__"
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("package", PACKAGES)
def test_what_is_not_python_is_installed_too(package: str) -> None:
    home, source = files(f"coterie.{package}"), folder_of(package)
    data = [path for path in source.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    names = [path.relative_to(source).as_posix() for path in data]
    assert "py.typed" in names
    assert [name for name in names if not home.joinpath(name).is_file()] == []


def test_the_newest_entry_of_the_changelog_is_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", text, re.MULTILINE)
    assert newest is not None
    assert newest[1] == version("coterie")
    assert f'version = "{newest[1]}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
