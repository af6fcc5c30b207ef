"""Load and ask a bundle. Needs NumPy and ONNX Runtime; neither torch, onnx nor BentoML.

import coterie.runtime

engine = coterie.runtime.load("bundle/")
prediction = engine.predict("sentiment", ["a fine book"])
print(prediction[0].label, prediction[0].probabilities)
"""

from coterie.runtime._compare import AnswerChange, StageChange, TaskChange, compare_bundles
from coterie.runtime.bundle import Bundle, load_bundle
from coterie.runtime.engine import Engine, Prediction, Result, load
from coterie.runtime.errors import (
    BundleError,
    ConfigError,
    CoterieError,
    IntegrityError,
    InvalidInputError,
    MissingExtraError,
    RequestError,
    SignatureError,
    UnknownTaskError,
)
from coterie.runtime.manifest import Manifest, TensorSpec, TextSpec, parse_manifest
from coterie.runtime.plan import BlockPlan, SharingPlan, StagePlan
from coterie.runtime.tasks import ROUTER, TaskSpec

__all__ = [
    "ROUTER",
    "AnswerChange",
    "BlockPlan",
    "Bundle",
    "BundleError",
    "ConfigError",
    "CoterieError",
    "Engine",
    "IntegrityError",
    "InvalidInputError",
    "Manifest",
    "MissingExtraError",
    "Prediction",
    "RequestError",
    "Result",
    "SharingPlan",
    "SignatureError",
    "StageChange",
    "StagePlan",
    "TaskChange",
    "TaskSpec",
    "TensorSpec",
    "TextSpec",
    "UnknownTaskError",
    "compare_bundles",
    "load",
    "load_bundle",
    "parse_manifest",
]
