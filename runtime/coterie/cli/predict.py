"""``coterie predict``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie.cli._public_key import PublicKeyOption

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coterie.runtime import Engine, Prediction, Result

EXAMPLES = (
    "Examples:\n\n"
    '$ coterie predict bundles/reviews --text "a fine book" --task books --task music\n\n'
    "$ coterie predict bundles/digits --input images.npy --task is_seven --json\n\n"
    "$ cat reviews.txt | coterie predict bundles/reviews --input -\n\n"
    "JSON is a list of inputs, of a bundle with several inputs a list of objects; CSV a row for each input, "
    "of numbers or with a column called text. Columns of numbers are taken in the order that they have; a "
    "first line of names may stand above them, and is not read."
)


def predict(  # noqa: PLR0917 - typer passes them by name
    bundle: Annotated[Path, typer.Argument(help="The bundle to ask.")],
    task: Annotated[
        list[str] | None,
        typer.Option("--task", "-t", help="A task to ask; give it again for more. Default: all."),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="A text to ask about; give it again for more.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option("--input", "-i", metavar="FILE", help="Inputs: .json, .npy, .csv, .txt; - is a pipe."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: labels, probabilities, scores.")
    ] = False,
    public_key: PublicKeyOption = None,
) -> None:
    """Ask tasks of a bundle about some inputs, without a server.

    Every task is asked about every input. What the tasks share is computed once for each input.
    """
    if (source is None) == (not text):
        raise typer.BadParameter("give either --text or --input FILE (- is a pipe)")
    from coterie.cli._folders import check_bundle

    check_bundle(bundle)
    from coterie.cli._read_inputs import read_inputs
    from coterie.runtime import load

    engine = load(bundle, public_key=public_key)
    names = list(dict.fromkeys(task or [spec.name for spec in engine.tasks]))
    inputs: Any = text if source is None else read_inputs(source, engine.bundle.manifest)
    prediction = _ask(engine, inputs, names)
    if as_json:
        typer.echo(json.dumps({"answers": _answers(prediction, names)}, indent=1, ensure_ascii=False))
    else:
        _print(prediction, len(names))


def _ask(engine: Engine, inputs: Any, names: Sequence[str]) -> Prediction:
    import numpy as np

    tasks = engine.task_indices(list(names))
    count = len(inputs)
    row = np.repeat(np.arange(count, dtype=np.int64), len(names))
    return engine.predict_many(inputs, row, np.tile(tasks, count))


def _answers(prediction: Prediction, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return for each input the answer of every task, as the server's /ask does."""
    results = iter(prediction)
    return [
        {
            name: {"label": result.label, "probabilities": result.probabilities, "scores": result.scores}
            for name, result in zip(names, results, strict=False)
        }
        for _ in range(len(prediction) // len(names))
    ]


def _print(prediction: Prediction, tasks: int) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("input", "task", "answer", "probability", box=None, pad_edge=False)
    for number, result in enumerate(prediction):
        answer, probability = _words(result)
        table.add_row(str(number // tasks), escape(result.task), escape(answer), probability)
    Console().print(table, highlight=False)


def _words(result: Result) -> tuple[str, str]:
    """Return an answer and its probability as a person reads them."""
    scores, probabilities = result.scores, result.probabilities
    if isinstance(scores, tuple) or isinstance(probabilities, tuple):
        return " ".join(result.label or ()), ""  # a tag for each word; --json has their probabilities
    if probabilities is None:
        return ", ".join(f"{name} {value:.4g}" for name, value in scores.items()), ""
    if isinstance(result.label, str):
        return result.label, f"{probabilities[result.label]:.4f}"
    chosen = ", ".join(result.label or ()) or "none of them"
    return chosen, ", ".join(f"{name} {value:.2f}" for name, value in probabilities.items())
