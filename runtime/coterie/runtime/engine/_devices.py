"""The devices that ONNX Runtime runs graphs on: which are there, how they are set up, and what is missing."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType

import onnxruntime as ort

from coterie.runtime.errors import ConfigError

CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"

_OPTIONS = MappingProxyType(
    {
        _CUDA: {
            # A block takes another number of rows in every batch: to try all of cuDNN's algorithms for each
            # number, as is the default, would take longer than the batch.
            "cudnn_conv_algo_search": "HEURISTIC",
            # Products of 10 bits are faster and not what the export has checked.
            "use_tf32": "0",
        }
    }
)
_GPU_PACKAGE, _CPU_PACKAGE = "onnxruntime-gpu", "onnxruntime"


def on_device(providers: Sequence[str]) -> bool:
    """Return whether graphs run anywhere but on the CPU."""
    return list(providers) != [CPU]


def provider_problems(providers: Sequence[str]) -> list[str]:
    """Return what is wrong with the providers that are asked for: none given, or one that is not there."""
    available = ort.get_available_providers()
    problems = [
        f"providers: {provider!r} is not in this ONNX Runtime, which has {', '.join(available)}"
        + (_how_to_get_it() if provider.startswith(("CUDA", "Tensorrt")) else "")
        for provider in providers
        if provider not in available
    ]
    if not providers:
        problems.append(f"providers: give at least one, such as {CPU!r}")
    return problems


def with_options(providers: Sequence[str]) -> list[str | tuple[str, dict[str, str]]]:
    """Return providers as a session takes them, each with its options."""
    if _CUDA in providers:
        _load_cuda()
    return [(name, dict(_OPTIONS[name])) if name in _OPTIONS else name for name in providers]


def check_started(session: ort.InferenceSession, providers: Sequence[str]) -> None:
    """Check that a session has all the providers that were asked for; ONNX Runtime leaves out what fails.

    Raises:
        ConfigError: If one is missing.
    """
    absent = [name for name in providers if name not in session.get_providers()]
    if not absent:
        return
    why = ""
    if any(name.startswith(("CUDA", "Tensorrt")) for name in absent):
        why = (
            "; it needs a GPU that nvidia-smi shows, and CUDA and cuDNN of the versions that this "
            f"onnxruntime-gpu {ort.__version__} was built for: pip install 'onnxruntime-gpu[cuda,cudnn]' "
            "brings both. ONNX Runtime has written what it missed to the standard error"
        )
    raise ConfigError(
        "ONNX Runtime did not start every provider that was asked for", [name + why for name in absent]
    )


def _how_to_get_it() -> str:
    if _installed(_GPU_PACKAGE) and _installed(_CPU_PACKAGE):
        # Both are one Python package; pip lets the one that comes last lie over the other.
        return (
            "; onnxruntime lies over onnxruntime-gpu: pip install --force-reinstall --no-deps onnxruntime-gpu"
        )
    return "; install coterie[gpu]"


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


@cache
def _load_cuda() -> None:
    """Load NVIDIA's libraries from where pip has put them; by itself ONNX Runtime asks the system alone."""
    load = getattr(ort, "preload_dlls", None)  # not in every version that coterie works with
    if load is not None:
        # What it cannot load it prints. If that was needed, the session says so.
        with contextlib.redirect_stdout(io.StringIO()):
            load()
