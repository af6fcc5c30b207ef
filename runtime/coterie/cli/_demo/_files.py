"""Export: a bundle, and every task as a file of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coterie.exporter import export_run, export_standalone
from coterie.runtime.bundle import load_bundle
from coterie.runtime.manifest import Manifest
from coterie.training import Run


@dataclass(frozen=True)
class Exported:
    """A bundle and the standalone files of its tasks.

    Attributes:
        bundle: The bundle's folder.
        manifest: Its manifest.
        files: Task to standalone file.
    """

    bundle: Path
    manifest: Manifest
    files: dict[str, Path]

    @property
    def bundle_bytes(self) -> int:
        """Size of every file that a server needs: all but the report."""
        return sum(path.stat().st_size for path in self.bundle.iterdir() if path.suffix != ".html")

    @property
    def standalone_bytes(self) -> int:
        """Size of all standalone files."""
        return sum(path.stat().st_size for path in self.files.values())


def export_everything(run: Run, folder: Path) -> Exported:
    """Export a run to ``folder``/bundles/NAME and each of its tasks to ``folder``/standalone/NAME."""
    name = run.config.name
    bundle = folder / "bundles" / name
    manifest = export_run(run, bundle)
    target = folder / "standalone" / name
    target.mkdir(parents=True)
    files = {task.name: target / f"{task.name}.onnx" for task in run.data.tasks}
    loaded = load_bundle(bundle)
    for task, file in files.items():
        export_standalone(loaded, task, file)
    return Exported(bundle, manifest, files)
