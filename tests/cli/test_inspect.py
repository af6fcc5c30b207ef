"""``coterie inspect``: what it says is what the manifest and the plan hold."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coterie.runtime import parse_manifest

from .conftest import Command


@pytest.fixture(scope="module")
def summary(bundle: Path) -> dict[str, Any]:
    # Without what only the extras bring: a bundle needs the base install alone.
    absent = ["torch", "onnx", "yaml", "sklearn", "scipy", "safetensors", "bentoml", "grpc", "starlette"]
    script = (
        f"import sys\nfor name in {absent}:\n    sys.modules[name] = None\n"
        "from coterie.cli.main import run\nrun(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "inspect", str(bundle), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


def test_json_says_what_the_manifest_holds(summary: dict[str, Any], bundle: Path) -> None:
    manifest = parse_manifest((bundle / "manifest.json").read_bytes())
    assert summary["kind"] == "bundle"
    assert [task["name"] for task in summary["tasks"]] == list(manifest.plan.tasks)
    for task, entry in zip(summary["tasks"], manifest.tasks, strict=True):
        assert task["labels"] == list(entry.task.labels)
        assert task["metrics"] == entry.metrics
    for shown, stage in zip(summary["stages"], manifest.plan.stages, strict=True):
        assert (shown["trained_blocks"], shown["kept_blocks"]) == (stage.trained_blocks, len(stage.blocks))
        assert shown["density"] == pytest.approx(stage.density().mean())
    groups = manifest.plan.stage("groups")
    for at, block in enumerate(groups.blocks):
        members = [
            task for task, own in zip(manifest.plan.tasks, groups.assignment(), strict=True) if own == at
        ]
        assert summary["clusters"]["groups"][block.name] == members
    experts = manifest.plan.stage("experts")
    for task, row in zip(manifest.plan.tasks, experts.mixing_matrix(), strict=True):
        assert list(summary["experts"]["experts"][task].values()) == pytest.approx(row[row != 0].tolist())
    assert summary["parity"]["max_abs_error"] == manifest.parity.max_abs_error
    assert summary["provenance"]["seed"] == 0


def test_sizes_are_those_of_the_files(summary: dict[str, Any], bundle: Path) -> None:
    sizes = summary["sizes"]
    assert sizes["report"] == (bundle / "report.html").stat().st_size
    assert sizes["bundle"] + sizes["report"] == sum(path.stat().st_size for path in bundle.iterdir())
    assert sizes["router"] == (bundle / "router.onnx").stat().st_size
    assert sizes["standalone_per_bundle"] == pytest.approx(sizes["standalone"] / sizes["bundle"], abs=1e-3)


def test_sizes_by_kind_are_those_of_the_manifest(
    coterie: Command, summary: dict[str, Any], bundle: Path
) -> None:
    manifest = parse_manifest((bundle / "manifest.json").read_bytes())
    shown = {row["blocks"]: row for row in summary["kinds"]}
    assert list(shown) == ["trunk", "experts", "centroids", "heads"]
    for words, kind in (("trunk", "hard"), ("experts", "gated"), ("centroids", "cluster"), ("heads", "head")):
        assert {key: shown[words][key] for key in ("copies", "trained", "kept")} == manifest.kinds[
            kind
        ].model_dump()
    assert sum(row["kept"] for row in shown.values()) == summary["sizes"]["weights"]
    lines = coterie("inspect", bundle).output.splitlines()
    (line,) = [line for line in lines if line.startswith("centroids ")]
    # Six tasks share two centroids; each had its own.
    assert line.count("33.3 %") == 2


def test_pairs_that_share_nothing_are_counted(summary: dict[str, Any], bundle: Path) -> None:
    plan = parse_manifest((bundle / "manifest.json").read_bytes()).plan
    used = np.concatenate([stage.mixing_matrix() != 0 for stage in plan.stages], axis=1)
    used = used[:, ~used.all(axis=0)]
    count = len(plan.tasks)
    apart = [
        [plan.tasks[one], plan.tasks[other]]
        for one in range(count)
        for other in range(one + 1, count)
        if not (used[one] & used[other]).any()
    ]
    assert summary["sharing"] == {
        "pairs": 15,
        "pairs_sharing_nothing": len(apart),
        "sharing_nothing": apart,
    }


def test_the_terminal_shows_the_same(coterie: Command, summary: dict[str, Any], bundle: Path) -> None:
    output = coterie("inspect", bundle).output
    for task in summary["tasks"]:
        line = next(line for line in output.splitlines() if line.startswith(task["name"]))
        assert f"{task['metrics']['dev']['accuracy']:.4f}" in line
        assert f"{task['metrics']['test']['accuracy']:.4f}" in line
    for stage in summary["stages"]:
        line = next(line for line in output.splitlines() if line.startswith(stage["name"] + " "))
        assert f"{stage['parameters']:,}" in line
    for members in summary["clusters"]["groups"].values():
        assert ", ".join(members) in output
    for what in ("all tasks as standalone files", "largest difference from torch", "seed 0"):
        assert what in output


def test_what_a_large_score_may_differ_by_is_said_to_be_relative(coterie: Command, tmp_path: Path) -> None:
    rows = [f"{at % 7},{at % 5},{900 + 50 * (at % 7) - 30 * (at % 5)}" for at in range(60)]
    (tmp_path / "large.csv").write_text("\n".join(["x_1,x_2,price", *rows]), encoding="utf-8")
    (tmp_path / "large.yaml").write_text(
        "data: {kind: table, path: large.csv, features: x_*, target: price, task_kind: regression, "
        "dev_share: 0.3}\n"
        "model: {stages: [{kind: hard, block: {kind: linear, width: 4}}]}\ntrainer: {epochs: 1, threads: 1}",
        encoding="utf-8",
    )
    done = coterie("train", tmp_path / "large.yaml", "--run", tmp_path / "run", "-q")
    assert done.exit_code == 0, done.output
    said = coterie("export", tmp_path / "run", tmp_path / "bundle").stdout
    parity = parse_manifest((tmp_path / "bundle" / "manifest.json").read_bytes()).parity
    shown = f"largest difference from torch {parity.max_abs_error:.1e} (allowed 1e-04, relative above 1)"
    assert shown in said
    assert shown in coterie("inspect", tmp_path / "bundle").output


def test_a_run_is_shown_without_torch_and_has_the_bundles_plan(
    coterie: Command, summary: dict[str, Any], run: Path
) -> None:
    result = coterie("inspect", run, "--json")
    of_run = json.loads(result.stdout)
    assert of_run["kind"] == "run"
    for part in ("stages", "clusters", "tree", "experts", "sharing", "tasks"):
        assert of_run[part] == summary[part]
    assert "sizes" not in of_run
    assert "a run of 6 tasks over float32 [n, 4]" in coterie("inspect", run).output


def test_a_stage_that_cannot_be_cut_says_so_and_why(coterie: Command, run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "whole")
    plan = json.loads((folder / "plan.json").read_text())
    stage = plan["stages"][-2]
    stage |= {"name": "moe", "kind": "input_gated", "columns": list(range(6))}
    stage |= {"blocks": stage["blocks"][:1], "uses": [[0]] * 6, "weights": [[1.0]] * 6}
    (folder / "plan.json").write_text(json.dumps(plan))
    shown = json.loads(coterie("inspect", folder, "--json").stdout)
    assert list(shown["whole"]) == ["moe"]
    text = " ".join(coterie("inspect", folder).output.split())
    assert (
        "moe computes every task's state for every input; nothing of it can be cut for a task: its gates"
        in text
    )


def layered(run: Path, folder: Path) -> Path:
    """Copy a run, and give it a layer of three clusters after that of two."""
    shutil.copytree(run, folder)
    plan = json.loads((folder / "plan.json").read_text())
    at = next(number for number, stage in enumerate(plan["stages"]) if stage["name"] == "groups")
    plan["stages"][at]["uses"] = [[0], [0], [0], [0], [1], [1]]
    block = plan["stages"][at]["blocks"][0]
    finer = plan["stages"][at] | {
        "name": "finer",
        "blocks": [block | {"name": f"finer/{number}", "source": number} for number in range(3)],
        "uses": [[0], [1], [0], [2], [2], [2]],
    }
    plan["stages"].insert(at + 1, finer)
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


def test_the_tree_of_clusters_is_shown_where_there_are_several_layers(
    coterie: Command, run: Path, tmp_path: Path
) -> None:
    assert "most general layer" not in coterie("inspect", run).output
    folder = layered(run, tmp_path / "layered")
    names = [task["name"] for task in json.loads(coterie("inspect", folder, "--json").stdout)["tasks"]]
    lines = coterie("inspect", folder).output.splitlines()
    start = lines.index("clusters, from the most general layer to the most specific")
    shown = [line.lstrip("│├└─ ").rstrip() for line in lines[start + 1 : start + 7]]
    stages = json.loads((folder / "plan.json").read_text())["stages"]
    (blocks,) = [stage["blocks"] for stage in stages if stage["name"] == "groups"]
    assert shown == [
        f"{blocks[0]['name']} 4 tasks",
        f"finer/0 2 tasks  {names[0]}, {names[2]}",
        f"finer/1 1 task  {names[1]}",
        f"finer/2 1 of its 3 tasks  {names[3]}",
        f"{blocks[1]['name']} 2 tasks",
        f"finer/2 2 of its 3 tasks  {names[4]}, {names[5]}",
    ]


def test_a_large_tree_is_cut_at_a_layer(run: Path, tmp_path: Path) -> None:
    from io import StringIO

    from rich.console import Console

    from coterie.cli._render_tree import tree_of
    from coterie.cli._summary import summarise

    tree = summarise(layered(run, tmp_path / "layered"))["tree"]
    text = StringIO()
    Console(file=text, width=120).print(tree_of(tree, 5))
    assert "3 groups in finer" in text.getvalue()
    assert "finer/0" not in text.getvalue()
    text = StringIO()
    Console(file=text, width=120).print(tree_of(tree, 1))
    assert "... and 1 more (--all shows them)" in text.getvalue()


def test_long_lists_are_cut_and_counted(bundle: Path) -> None:
    from io import StringIO

    from rich.console import Console

    from coterie.cli._render import show
    from coterie.cli._summary import summarise

    text = StringIO()
    show(summarise(bundle), Console(file=text, width=120), rows=4)
    assert text.getvalue().count("... and 2 more (--all shows them)") == 2


def test_the_words_that_are_known_without_torch_are_the_trainings_own() -> None:
    from coterie.cli import _folders
    from coterie.training import run

    assert (_folders.RUN_CONFIG, _folders.RUN_DATA) == (run.CONFIG, run.DATA)
    assert (_folders.RUN_PLAN, _folders.RUN_METRICS) == (run.PLAN, run.METRICS)
