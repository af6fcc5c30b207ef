"""A summary as tables on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from coterie.cli._render_tree import names, tree_of

_SIZES = {
    "bundle": "the bundle, without its report",
    "weights": "  weights, held once",
    "fp32": "  the same weights in fp32",
    "graphs": "  task graphs",
    "router": "  router graph",
    "standalone": "all tasks as standalone files",
    "dense": "every block that was trained",
    "cut_experts": "  left out: experts nobody uses",
    "cut_centroids": "  left out: clustered or unused",
    "cut_columns": "  left out: dead parts of columns",
    "cut_others": "  left out: other unused blocks",
    "cut_equal": "  left out: equal tensors",
}
_LABELS = 6
_MEMBERS = 20
_PAIRS = 5


def show(summary: Mapping[str, Any], console: Console, *, rows: int | None) -> None:
    """Print a summary.

    Args:
        summary: What ``summarise`` returned.
        console: Where to.
        rows: Longest table; the rest is counted. ``None`` is no limit.
    """
    verified = f", {summary['files']} files verified" if "files" in summary else ""
    takes = [_takes(each) for each in summary["inputs"]]
    if len(takes) > 1:
        takes = [f"{each['name']} ({what})" for each, what in zip(summary["inputs"], takes, strict=True)]
    what = f"a {summary['kind']} of {len(summary['tasks'])} tasks over {' and '.join(takes)}"
    console.print(f"[bold]{escape(summary['name'])}[/]: {escape(what)}{verified}", highlight=False)
    for table in (
        _tasks(summary["tasks"], rows),
        _stages(summary["stages"]),
        *_tree(summary["tree"], rows),
        *_clusters(summary["clusters"], rows),
        *_experts(summary["experts"], rows),
        *_kinds(summary.get("kinds", ())),
    ):
        console.print()
        console.print(table, highlight=False)
    console.print()
    for line in (*_whole(summary["whole"]), *_sharing(summary["sharing"]), *_facts(summary)):
        console.print(line, highlight=False)


def size(count: float) -> str:
    """Return a number of bytes as a person reads it."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.2f} GiB"


def allowed(tolerance: float) -> str:
    """Return what a score may differ by from torch's; the difference shown beside it is not relative."""
    return f"allowed {tolerance:.0e}, relative above 1"


def _takes(spec: dict[str, Any]) -> str:
    return "text" if spec["text"] else f"{spec['dtype']} {_dims(spec['shape'])}"


def _dims(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("n" if dim is None else str(dim) for dim in shape) + "]"


def _table(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        # Folded rather than cut: what is copied from here must be whole.
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _tasks(tasks: Sequence[Mapping[str, Any]], rows: int | None) -> Table:
    splits = [split for split in ("dev", "test", "ood") if any(split in task["metrics"] for task in tasks)]
    table = _table("tasks", "task", "kind", "labels", "metric", *splits, right=splits)
    for task in tasks[:rows]:
        name = task["metric"]
        scores = [_score(task["metrics"].get(split, {}).get(name)) for split in splits]
        table.add_row(escape(task["name"]), task["kind"], _labels(task["labels"]), name, *scores)
    if rows is not None and len(tasks) > rows:
        table.add_row(f"... and {len(tasks) - rows} more (--all shows them)")
    means = [_mean(tasks, split) for split in splits]
    if splits and len(tasks) > 1:
        table.add_row("[bold]mean[/]", "", "", "", *[f"[bold]{mean}[/]" for mean in means])
    return table


def _labels(labels: Sequence[str]) -> str:
    shown = ", ".join(labels[:_LABELS])
    return escape(shown) + (f", ... ({len(labels)})" if len(labels) > _LABELS else "")


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _mean(tasks: Sequence[Mapping[str, Any]], split: str) -> str:
    values = [task["metrics"].get(split, {}).get(task["metric"]) for task in tasks]
    known = [value for value in values if value is not None]
    return _score(sum(known) / len(known) if known else None)


def _stages(stages: Sequence[Mapping[str, Any]]) -> Table:
    right = ("trained", "kept", "parameters", "blocks a task")
    table = _table("stages (blocks trained, blocks kept)", "stage", "kind", *right, right=right)
    for stage in stages:
        low, high = stage["density_range"]
        density = f"{stage['density']:.2f}" + (f" ({low} to {high})" if low < high else "")
        counts = (stage["trained_blocks"], stage["kept_blocks"])
        table.add_row(
            escape(stage["name"]), stage["kind"], *map(str, counts), f"{stage['parameters']:,}", density
        )
    return table


def _tree(tree: Sequence[Mapping[str, Any]], rows: int | None) -> Iterator[Tree]:
    """Yield the tree of clusters; of one layer the table of its centroids says all."""
    if any(branch["branches"] for branch in tree):
        yield tree_of(tree, rows)


def _clusters(clusters: Mapping[str, Mapping[str, Sequence[str]]], rows: int | None) -> Iterator[Table]:
    for stage, members in clusters.items():
        table = _table(
            f"{escape(stage)}: who shares a centroid", "centroid", "tasks", "members", right=["tasks"]
        )
        for block, tasks in sorted(members.items(), key=lambda item: -len(item[1]))[:rows]:
            table.add_row(escape(block), str(len(tasks)), names(tasks, _MEMBERS if rows else None))
        if rows is not None and len(members) > rows:
            table.add_row(f"... and {len(members) - rows} more (--all shows them)")
        yield table


def _experts(experts: Mapping[str, Mapping[str, Mapping[str, float]]], rows: int | None) -> Iterator[Table]:
    for stage, tasks in experts.items():
        table = _table(
            f"{escape(stage)}: experts of each task, with mixture weights", "task", "k", "experts", right="k"
        )
        for task, used in list(tasks.items())[:rows]:
            mixed = ", ".join(
                f"{block.removeprefix(stage + '/')} x {weight:.2f}" for block, weight in used.items()
            )
            table.add_row(escape(task), str(len(used)), mixed)
        if rows is not None and len(tasks) > rows:
            table.add_row(f"... and {len(tasks) - rows} more (--all shows them)")
        yield table


def _kinds(kinds: Sequence[Mapping[str, Any]]) -> Iterator[Table]:
    """Yield what the weights of each kind of block weigh, before and after."""
    if not kinds:
        return
    right = ("copies", "trained", "bundle", "of copies", "of trained", "share")
    title = "weights by kind of block (copies: each task its own of what it uses)"
    table = _table(title, "blocks", "stages", *right, right=right)
    total = {key: sum(row[key] for row in kinds) for key in ("copies", "trained", "kept")}
    for row in (*kinds, {"blocks": "all", "stages": (), **total}):
        kept = row["kept"]
        sizes = [size(row[key]) for key in ("copies", "trained", "kept")]
        parts = [_percent(kept, whole) for whole in (row["copies"], row["trained"], total["kept"])]
        table.add_row(row["blocks"], escape(", ".join(row["stages"])), *sizes, *parts)
    yield table


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _whole(stages: Mapping[str, str]) -> Iterator[str]:
    for stage, why in stages.items():
        yield (
            f"[bold]{escape(stage)}[/] computes every task's state for every input; nothing of it can be "
            f"cut for a task: {why}"
        )


def _sharing(sharing: Mapping[str, Any]) -> Iterator[str]:
    count, pairs = sharing["pairs_sharing_nothing"], sharing["pairs"]
    line = f"[bold]sharing[/]     {count} of {pairs} pairs of tasks share nothing but what all tasks share"
    if count:
        named = [" and ".join(pair) for pair in sharing["sharing_nothing"][:_PAIRS]]
        line += f": {escape(', '.join(named))}" + (", ..." if count > _PAIRS else "")
    yield line


def _facts(summary: Mapping[str, Any]) -> Iterator[str]:
    if "sizes" in summary:
        sizes = summary["sizes"]
        yield "[bold]sizes[/]"
        width = max(map(len, _SIZES.values()))
        for key, label in _SIZES.items():
            if key in sizes:
                times = f"  = {sizes['standalone_per_bundle']:.2f} bundles" if key == "standalone" else ""
                yield f"  {label:<{width}}  {size(sizes[key]):>10}{times}"
    if "parity" in summary:
        parity = summary["parity"]
        against = "each question alone" if "precision" in summary else "torch"
        yield (
            f"[bold]parity[/]      largest difference from {against} {parity['max_abs_error']:.1e} "
            f"({allowed(parity['tolerance'])}), {parity['graphs']} graphs, {parity['inputs']} inputs"
        )
        if parity["metrics"] is not None:
            yield f"[bold]metrics[/]     largest difference of a task's from torch {parity['metrics']:.1e}"
    if "precision" in summary:
        yield from _precision(summary["precision"])
    origin = summary["provenance"]
    parts = [f"coterie {origin['coterie']}"] if "coterie" in origin else []
    parts += [f"seed {origin['seed']}"] if origin.get("seed") is not None else []
    parts += [f"data {origin['data_sha256'][:12]}"] if origin.get("data_sha256") else []
    parts += [f"{name} {version}" for name, version in origin.get("versions", {}).items()]
    if parts:
        yield f"[bold]provenance[/]  {', '.join(parts)}"


def _precision(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield which blocks are stored in what, and what that cost."""
    counts = Counter(report["blocks"].values())
    stored = ", ".join(f"{count} blocks {name}" for name, count in counts.most_common())
    line = f"[bold]precision[/]   {stored}; largest difference from torch {report['score_difference']:.1e}"
    if report["drops"]:
        task = max(report["drops"], key=report["drops"].get)
        line += (
            f"; most lost on dev {report['drops'][task]:.2f} points ({escape(task)}), allowed "
            f"{report['max_metric_drop']:g}"
        )
    yield line
    if report["costly"]:
        yield f"            fp32 because they cost too much: {escape(', '.join(report['costly']))}"
