"""A device that is not there is an error that says what to do."""

from __future__ import annotations

import onnxruntime as ort
import pytest

from coterie.runtime.engine import _devices
from coterie.runtime.errors import ConfigError

from .handmade import HandMade

CUDA = "CUDAExecutionProvider"
without_cuda = pytest.mark.skipif(CUDA in ort.get_available_providers(), reason="this ONNX Runtime has CUDA")


@without_cuda
def test_what_is_not_installed_is_named_with_its_extra() -> None:
    (problem,) = _devices.provider_problems([CUDA, "CPUExecutionProvider"])
    assert problem.endswith("install coterie[gpu]")


@without_cuda
def test_a_package_that_lies_over_the_other_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip installs both into one folder, and the one for the CPU may come last."""
    monkeypatch.setattr(_devices, "_installed", lambda _: True)
    (problem,) = _devices.provider_problems([CUDA])
    assert problem.endswith("pip install --force-reinstall --no-deps onnxruntime-gpu")


def test_a_provider_that_onnx_runtime_left_out_is_an_error(features: HandMade) -> None:
    """Without a driver a session starts all the same, on the CPU, and says so only in its log."""
    session = ort.InferenceSession(str(features.path / "router.onnx"), providers=["CPUExecutionProvider"])
    _devices.check_started(session, ["CPUExecutionProvider"])
    with pytest.raises(ConfigError, match=r"did not start every provider(.|\n)*CUDA.*nvidia-smi.*cudnn"):
        _devices.check_started(session, [CUDA, "CPUExecutionProvider"])


def test_cuda_computes_what_the_export_has_checked() -> None:
    cuda, cpu = _devices.with_options([CUDA, "CPUExecutionProvider"])
    assert cpu == "CPUExecutionProvider"
    assert cuda == (CUDA, {"cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"})


def test_only_the_cpu_is_no_device() -> None:
    assert not _devices.on_device(["CPUExecutionProvider"])
    assert _devices.on_device([CUDA, "CPUExecutionProvider"])
