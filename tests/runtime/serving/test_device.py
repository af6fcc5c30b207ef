from __future__ import annotations

import onnxruntime
import pytest

from coterie.runtime import ConfigError
from coterie.runtime.serving._open import open_models
from coterie.runtime.serving._settings import Settings
from coterie.runtime.serving.observing._metrics import Metrics

from ..handmade import HandMade


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this machine could"
)
def test_a_server_does_not_fall_back_to_the_cpu(features: HandMade) -> None:
    with pytest.raises(ConfigError, match=r"CUDAExecutionProvider.*install coterie\[gpu\]"):
        open_models(Settings(bundle=features.path, device="cuda"), Metrics())
