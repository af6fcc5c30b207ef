"""The report can be read on its own, and says what is in the bundle."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import numpy as np
import pytest
from tests.exporter.conftest import Exported
from tests.exporter.models import MODELS

from coterie.exporter import render_report
from coterie.runtime.manifest import Manifest, parse_manifest
from coterie.runtime.overview import cluster_tree
from coterie.runtime.plan import BlockPlan, SharingPlan, StagePlan

Get = Callable[[str], Exported]

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Collects a page's text, and checks that its elements are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.resources: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.resources += [value or "" for key, value in attrs if key in {"src", "href", "data", "srcset"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


@pytest.mark.parametrize("name", list(MODELS))
def test_the_report_is_one_whole_page_without_other_resources(exported: Get, name: str) -> None:
    html = (exported(name).folder / "report.html").read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == []
    assert page.resources == []
    assert "script" not in page.tags
    assert "url(" not in html


def test_the_report_shows_sizes_stages_and_parity(exported: Get) -> None:
    manifest = exported("features").manifest
    page = Page(render_report(manifest))
    for size in manifest.sizes.values():
        assert f"{size:,}" in page.words
    for stage in manifest.plan.stages:
        assert stage.name in page.words
    assert str(manifest.parity.max_abs_error) in page.words
    assert "experts (gated): tasks and blocks" in page.words


def test_the_sharing_maps_fill_a_square_for_each_block_used(exported: Get) -> None:
    manifest = exported("features").manifest
    page = Page(render_report(manifest))
    used = sum(
        int(manifest.plan.stage(name).density().sum()) for name in ("experts", "clusters2", "clusters3")
    )
    uses = [
        [set(blocks) for blocks in manifest.plan.stage(name).uses]
        for name in ("experts", "clusters2", "clusters3")
    ]
    pairs = sum(any(own[a] & own[b] for own in uses) or a == b for a in range(7) for b in range(7))
    # Each square is a <rect> with a <title>; the page's own title is one more.
    assert page.tags.count("title") - 1 == used + pairs


def test_maps_of_many_tasks_stay_small_and_still_fill_every_square(exported: Get) -> None:
    manifest = exported("features").manifest
    copies = 40
    stages = tuple(
        stage.model_copy(update={"uses": stage.uses * copies, "weights": stage.weights * copies})
        for stage in manifest.plan.stages
    )
    tasks = tuple(f"{task} {copy}" for copy in range(copies) for task in manifest.plan.tasks)
    plan = manifest.plan.model_copy(update={"tasks": tasks, "stages": stages})
    html = render_report(manifest.model_copy(update={"plan": plan}))
    used = sum(int((stage.mixing_matrix() != 0).sum()) for stage in stages if len(stage.blocks) > 1)
    drawn = re.findall(r'<path class="(?:plus|minus)" opacity="[^"]*" d="([^"]*)"', html)
    assert sum(path.count("M") for path in drawn) == used
    assert Page(html).tags.count("title") == 1
    assert sum(map(len, drawn)) < 30 * used


def test_sizes_by_kind_add_up_to_those_of_the_bundle(exported: Get) -> None:
    for name in MODELS:
        manifest = exported(name).manifest
        assert sum(kind.kept for kind in manifest.kinds.values()) == manifest.sizes["weights"]
        assert sum(kind.trained for kind in manifest.kinds.values()) == manifest.sizes["dense"]
        assert list(manifest.kinds) == list(dict.fromkeys(stage.kind for stage in manifest.plan.stages))


def test_sizes_by_kind_are_those_of_the_blocks(exported: Get) -> None:
    bundle = exported("features")
    kinds = bundle.manifest.kinds
    expert, large, small = (
        sum(tensor.numel() for tensor in bundle.model.banks[at].tensors[0].values()) * 4 for at in (2, 3, 4)
    )
    # Eight experts were trained, five are used, by seven tasks that use 13 in all.
    assert (kinds["gated"].trained, kinds["gated"].kept) == (8 * expert, 5 * expert)
    assert kinds["gated"].copies == bundle.manifest.plan.stage("experts").density().sum() * expert
    assert kinds["cluster"].copies == 7 * large + 7 * small
    assert kinds["cluster"].kept == 2 * large + 3 * small
    assert kinds["head"].copies == kinds["head"].kept


def test_the_report_shows_sizes_by_kind_in_the_order_of_the_stages(exported: Get) -> None:
    manifest = exported("features").manifest
    html = render_report(manifest)
    words = Page(html).words
    table = words[words.index("Weights before and after, by kind of block") :]
    assert [table.index(word) for word in ("trunk", "experts", "centroids", "heads", "All")] == sorted(
        table.index(word) for word in ("trunk", "experts", "centroids", "heads", "All")
    )
    assert "62.5 %" in table  # five of eight experts
    # A manifest that was read again has its keys sorted, and gives the same page.
    assert render_report(parse_manifest(manifest.dumps())) == html


def test_a_bundle_that_does_not_say_its_sizes_by_kind_is_shown_without(exported: Get) -> None:
    older = exported("features").manifest.model_copy(update={"kinds": {}})
    assert "by kind of block" not in render_report(older)


def grouped(tasks: int, *clusters: int) -> SharingPlan:
    """Tasks in clusters by their number; a layer cuts across another unless it divides it."""
    stages = [
        StagePlan(
            name=f"layer{count}",
            kind="cluster",
            trained_blocks=tasks,
            blocks=tuple(
                BlockPlan(name=f"layer{count}/{block}", source=block, parameters=1) for block in range(count)
            ),
            uses=tuple((task % count,) for task in range(tasks)),
            weights=((1.0,),) * tasks,
        )
        for count in clusters
    ]
    return SharingPlan(tasks=tuple(f"task {number}" for number in range(tasks)), stages=tuple(stages))


def test_the_tree_divides_the_tasks_of_each_cluster_by_the_next_layer() -> None:
    first, second = cluster_tree(grouped(7, 1, 2, 4))
    assert (first.block, first.tasks) == ("layer2/0", ("task 0", "task 2", "task 4", "task 6"))
    assert [(branch.block, branch.tasks, branch.of) for branch in first.branches] == [
        ("layer4/0", ("task 0", "task 4"), 2),
        ("layer4/2", ("task 2", "task 6"), 2),
    ]
    assert [branch.tasks for branch in second.branches] == [("task 1", "task 5"), ("task 3",)]
    assert all(branch.branches == () for branch in (*first.branches, *second.branches))


def test_a_cluster_that_cuts_across_an_earlier_layer_is_in_several_branches() -> None:
    tree = cluster_tree(grouped(12, 2, 3))
    found = [branch for each in tree for branch in each.branches if branch.block == "layer3/1"]
    assert [(len(branch.tasks), branch.of) for branch in found] == [(2, 4), (2, 4)]


def test_a_plan_of_very_many_layers_has_a_tree() -> None:
    layer = grouped(4, 2).stages[0]
    stages = tuple(layer.model_copy(update={"name": f"layer {number}"}) for number in range(3000))
    depth, level = 0, cluster_tree(SharingPlan(tasks=("a", "b", "c", "d"), stages=stages))
    while level:
        depth, level = depth + 1, level[0].branches
    assert 3 < depth < 100


def with_plan(manifest: Manifest, plan: SharingPlan) -> Manifest:
    entry = manifest.tasks[0]
    tasks = tuple(
        entry.model_copy(update={"task": entry.task.model_copy(update={"name": name})}) for name in plan.tasks
    )
    return manifest.model_copy(update={"plan": plan, "tasks": tasks, "kinds": {}})


@pytest.mark.parametrize(("tasks", "opened"), [(20, True), (1000, False)])
def test_the_report_has_the_tree_and_folds_it_for_many_tasks(exported: Get, tasks: int, opened: bool) -> None:
    plan = grouped(tasks, 2, 4, 8)
    html = render_report(with_plan(exported("lone").manifest, plan))
    page = Page(html)
    assert page.open == []
    assert page.tags.count("details") == 2 + 4 + 8
    assert html.count("<details open>") == (14 if opened else 0)
    tree = html[html.index('<ul class="tree">') :]
    leaves = [leaf.split("</p>")[0].split(", ") for leaf in tree.split("<p>")[1:9]]
    assert sorted(np.concatenate(leaves).tolist()) == sorted(plan.tasks)
    # What is folded on the screen is printed.
    assert "details::details-content" in html[html.index("@media print") :]
