"""A bundle appears whole or not at all."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.exporter.conftest import Exported, publish
from tests.exporter.models import shared
from torch import Tensor

from coterie.exporter._publish import staged_folder
from coterie.runtime.errors import ExportError, ParityError
from coterie.runtime.manifest import MANIFEST

Get = Callable[[str], Exported]


def test_a_wrong_answer_fails_the_export_and_leaves_nothing(tmp_path: Path) -> None:
    model = shared()

    def reference(inputs: Tensor, row: Tensor, task: Tensor) -> Tensor:
        return model(inputs, row, task) + 1e-3 * (task[:, None] == 2)

    with pytest.raises(ParityError, match=r"t2\.onnx at batch size 1 differs .* by 0\.001"):
        publish(model, tmp_path / "bundle", reference=reference)
    assert list(tmp_path.iterdir()) == []
    publish(model, tmp_path / "bundle", reference=reference, tolerance=1e-2)
    assert (tmp_path / "bundle" / MANIFEST).is_file()


def test_a_reference_that_mixes_rows_up_fails_the_export(tmp_path: Path) -> None:
    model = shared()
    with pytest.raises(ParityError):
        publish(
            model, tmp_path / "bundle", reference=lambda inputs, row, task: model(inputs, row.flip(0), task)
        )


def test_scores_that_are_not_numbers_fail_the_export(tmp_path: Path) -> None:
    model = shared()
    model.banks[0].tensors[0]["layer.bias"][0] = torch.nan
    with pytest.raises(ParityError, match="not finite"):
        publish(model, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_does_not_touch_the_bundle_that_is_there(tmp_path: Path) -> None:
    model = shared()
    publish(model, tmp_path / "bundle")
    before = (tmp_path / "bundle" / MANIFEST).read_bytes()
    with pytest.raises(ParityError):
        publish(
            model,
            tmp_path / "bundle",
            overwrite=True,
            reference=lambda inputs, row, task: model(inputs, row, task) + 1,
        )
    assert (tmp_path / "bundle" / MANIFEST).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_an_existing_bundle_is_replaced_only_when_asked(tmp_path: Path) -> None:
    model = shared()
    publish(model, tmp_path / "bundle", name="old")
    with pytest.raises(ExportError, match="exists"):
        publish(model, tmp_path / "bundle", name="new")
    assert publish(model, tmp_path / "bundle", name="new", overwrite=True).name == "new"
    assert b'"name": "new"' in (tmp_path / "bundle" / MANIFEST).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_what_is_not_a_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "link").symlink_to(tmp_path / "thesis")
    (tmp_path / "file").write_text("a file")
    for name in ("thesis", "link", "file"):
        with pytest.raises(ExportError):
            publish(shared(), tmp_path / name, overwrite=True)
    with pytest.raises(ExportError, match="not a folder"):
        publish(shared(), tmp_path / "nowhere" / "bundle")
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


def test_a_reader_never_sees_half_a_bundle(tmp_path: Path) -> None:
    destination = tmp_path / "bundle"
    stop = threading.Event()
    seen: set[tuple[str, ...]] = set()

    def read() -> None:
        while not stop.is_set():
            try:
                seen.add(tuple(sorted(path.name for path in destination.iterdir())))
            except FileNotFoundError:
                seen.add(("missing",))

    def write(version: int) -> None:
        with staged_folder(destination, overwrite=True) as folder:
            (folder / MANIFEST).write_text(str(version))
            for part in range(20):
                (folder / f"{version % 2}-{part:02}").write_text("x")

    write(0)
    reader = threading.Thread(target=read)
    reader.start()
    for version in range(1, 20):
        write(version)
    stop.set()
    reader.join()
    whole = {(*(f"{parity}-{part:02}" for part in range(20)), MANIFEST) for parity in (0, 1)}
    allowed = whole if sys.platform.startswith("linux") else {*whole, ("missing",)}
    # A listing can be cut short while the folder it began with is removed, but never mixes two versions.
    assert all(any(set(names) <= set(one) for one in allowed) for names in seen)
    assert ("missing",) in allowed or ("missing",) not in seen
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_what_a_killed_export_left_is_removed_and_a_running_ones_folder_is_not(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from coterie.exporter._publish import staged_folder\n"
        "with staged_folder(Path(sys.argv[1]), overwrite=False) as folder:\n"
        "    (folder / 'weights').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "bundle")], check=False)
    (left,) = tmp_path.iterdir()
    with staged_folder(tmp_path / "bundle", overwrite=False) as running:
        assert not left.exists()
        with staged_folder(tmp_path / "bundle", overwrite=False) as other:
            assert running.exists()
            (other / MANIFEST).write_text("{}")
        (running / MANIFEST).write_text("{}")
        (tmp_path / "bundle" / MANIFEST).unlink()
        (tmp_path / "bundle").rmdir()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": np.zeros((3, 9), dtype=np.float32)}, "input 'inputs' is float32"),
        ({"samples": np.zeros((3, 8), dtype=np.float64)}, "the samples are float64"),
        ({"samples": np.zeros((0, 8), dtype=np.float32)}, "no samples"),
        ({"name": "../up"}, "cannot be called"),
        ({"tolerance": 0.0}, "checks nothing"),
        ({"metrics": {"nobody": {}}}, "does not have"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        publish(shared(), tmp_path / "bundle", **options)
    assert list(tmp_path.iterdir()) == []
