"""With the base dependencies alone a bundle is loaded and asked; what cannot be done says what to install."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ..runtime.handmade import HandMade, write_bundle
from .bare import coterie_bare, hidden_modules, run_bare

ASK = """
import json
import sys
import numpy as np
import coterie.runtime

engine = coterie.runtime.load(sys.argv[1], mode=sys.argv[2], threads=1)
inputs = np.array(json.loads(sys.argv[3]), dtype=np.float32)
prediction = engine.predict("mood", inputs)
print(prediction.scores.tolist())
print(engine.predict_many(inputs, [0] * len(engine.tasks), list(range(len(engine.tasks)))).label_texts())
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    return write_bundle(tmp_path_factory.mktemp("bare") / "bundle")


@pytest.fixture(scope="module")
def text_bundle(tmp_path_factory: pytest.TempPathFactory) -> HandMade:
    return write_bundle(tmp_path_factory.mktemp("bare-text") / "bundle", text=True)


def test_the_bare_environment_lacks_what_the_extras_bring() -> None:
    assert {"torch", "onnx", "bentoml", "grpc", "starlette", "sklearn", "pyarrow"} <= hidden_modules()
    assert not {"numpy", "onnxruntime", "pydantic", "tokenizers", "typer", "rich"} & hidden_modules()
    assert "No module named 'torch'" in run_bare("import torch").stderr


@pytest.mark.parametrize("mode", ["router", "task"])
def test_a_bundle_is_loaded_and_asked(bundle: HandMade, mode: str) -> None:
    inputs = bundle.inputs(3)
    done = run_bare(ASK, str(bundle.path), mode, json.dumps(inputs.tolist()))
    assert done.returncode == 0, done.stderr
    scores, labels = done.stdout.splitlines()
    np.testing.assert_allclose(json.loads(scores), bundle.scores("mood", inputs), atol=1e-5)
    assert "negative" in labels or "positive" in labels


def test_help_of_every_command_is_shown() -> None:
    done = coterie_bare("--help")
    assert done.returncode == 0, done.stderr
    for command in ("train", "export", "inspect", "predict", "serve", "demo", "presets"):
        assert command in done.stdout
        assert coterie_bare(command, "--help").returncode == 0


def test_a_bundle_is_inspected(bundle: HandMade) -> None:
    done = coterie_bare("inspect", str(bundle.path))
    assert done.returncode == 0, done.stderr
    assert "mood" in done.stdout


def test_a_text_is_predicted(text_bundle: HandMade) -> None:
    done = coterie_bare("predict", str(text_bundle.path), "--text", "a good book", "--task", "mood")
    assert done.returncode == 0, done.stderr
    likeliest = int(text_bundle.scores("mood", ["a good book"]).argmax())
    assert ("negative", "positive")[likeliest] in done.stdout


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """What looks like a finished run from outside."""
    for name in ("config.yaml", "plan.json", "metrics.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("extra", "arguments"),
    [
        ("train", ("train", "digits")),
        ("train", ("presets",)),
        ("export", ("export", "RUN")),
        ("serve", ("serve", "BUNDLE")),
        ("sign", ("keygen", "RUN/key")),
        ("sign", ("inspect", "BUNDLE", "--public-key", "key.pem")),
        ("all", ("demo",)),
    ],
)
def test_a_command_without_its_extra_says_what_to_install(
    extra: str, arguments: tuple[str, ...], bundle: HandMade, run_folder: Path
) -> None:
    given = {"BUNDLE": str(bundle.path), "RUN": str(run_folder)}
    done = coterie_bare(*(given.get(each, each.replace("RUN/", f"{run_folder}/")) for each in arguments))
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"pip install 'coterie[{extra}]'" in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


def test_the_console_script_beside_this_python_works() -> None:
    script = Path(sys.executable).with_name("coterie")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout
