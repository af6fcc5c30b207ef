"""What lies in a folder that a user names: a bundle, a run, or neither."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from coterie.runtime.errors import BundleError, CheckpointError, CoterieError
from coterie.runtime.manifest import MANIFEST

RUN_CONFIG = "config.yaml"
RUN_DATA = "data.json"
RUN_PLAN = "plan.json"
RUN_METRICS = "metrics.json"

Kind = Literal["bundle", "run"]


def kind_of(folder: Path) -> Kind:
    """Return whether a folder holds a bundle or a finished run.

    Raises:
        CheckpointError: If it is a run that has not ended.
        CoterieError: If it is neither.
    """
    if (folder / MANIFEST).is_file():
        return "bundle"
    if (folder / RUN_METRICS).is_file() and (folder / RUN_PLAN).is_file():
        return "run"
    if (folder / RUN_CONFIG).is_file():
        raise CheckpointError(
            f"the run in {folder} has not ended: give the same coterie train command again, it resumes"
        )
    if not folder.exists():
        raise CoterieError(f"there is no folder {folder}: check the path")
    raise CoterieError(
        f"{folder} is neither a run nor a bundle: coterie train makes a run folder, coterie export a bundle"
    )


def check_bundle(folder: Path) -> None:
    """Refuse what is not a bundle, and say what it is instead.

    Raises:
        BundleError: If the folder holds a run.
        CoterieError: If it holds neither.
    """
    if kind_of(folder) == "run":
        raise BundleError(f"{folder} is a run, not a bundle: run coterie export {folder} first")
