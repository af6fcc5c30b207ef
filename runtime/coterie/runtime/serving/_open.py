"""From a folder, a bundle's or a store's, to the models that a server answers with."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from coterie.runtime.batching import Batcher, Limits
from coterie.runtime.bundle import Bundle, load_bundle
from coterie.runtime.bundle._signature import PublicKey
from coterie.runtime.engine import Engine
from coterie.runtime.engine._devices import provider_problems
from coterie.runtime.errors import BundleError, ConfigError
from coterie.runtime.serving._settings import Settings
from coterie.runtime.serving.models._follow import Follower, load_served
from coterie.runtime.serving.models._metadata import VERSION
from coterie.runtime.serving.models._models import Models
from coterie.runtime.serving.models._turns import Turns
from coterie.runtime.serving.observing._metrics import Metrics
from coterie.runtime.store import Store, is_store

_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
}


def check_served(
    path: str | os.PathLike[str], public_key: PublicKey | None, *, weighted: Iterable[str] = ()
) -> Path:
    """Verify what is to be served, and return its folder.

    Args:
        path: Folder of a bundle, or of a store.
        public_key: What the bundle must be signed with; ``None`` asks for no signature.
        weighted: Tasks that are given a weight.

    Raises:
        BundleError: If it is a bundle that cannot be served, or a store with none that can.
        SignatureError: If a key is given and the bundle is not signed with it.
        ConfigError: If the bundle lacks a task that is given a weight.
    """
    if not is_store(path):
        bundle = load_bundle(path, public_key=public_key)
        _check_weighted(bundle, weighted)
        return bundle.path
    store = Store(path)
    current = store.pointer().current
    for number in reversed(store.pointer().history):
        # A server that is started again goes on with what one that had run all along would serve.
        with contextlib.suppress(BundleError):
            _check_weighted(load_bundle(store.folder(number), public_key=public_key), weighted)
            return store.path
    try:
        load_bundle(store.folder(current), public_key=public_key)  # says what is wrong with it
    except BundleError as error:
        raise type(error)(
            f"no version of the store can be served; of {current}, the last: {error}"
        ) from error
    return store.path


def check_device(settings: Settings) -> None:
    """Refuse a device that ONNX Runtime cannot use here.

    Raises:
        ConfigError: If it cannot, with what to install.
    """
    problems = provider_problems(_PROVIDERS[settings.device])
    if problems:
        raise ConfigError("the server cannot use its device", problems)


def open_models(settings: Settings, metrics: Metrics) -> tuple[Models, Follower | None]:
    """Load and warm what the settings name; of a store also what keeps the models as the store says.

    Raises:
        ConfigError: If they name nothing.
        BundleError: If it cannot be loaded.
    """
    if settings.bundle is None:
        raise ConfigError("the server has no bundle", ["COTERIE_BUNDLE: set it to a bundle's folder"])

    load = partial(_engine, settings)
    batcher = partial(_batcher, settings, metrics)

    def models_of(engine: Engine, number: str) -> Models:
        return Models(
            batcher(engine, number),
            max_rows=settings.max_rows,
            max_text=settings.max_text,
            number=number,
            observer=metrics,
            turns=Turns(_limits(settings), weights=settings.task_weights),
        )

    if not is_store(settings.bundle):
        return models_of(load(settings.bundle), VERSION), None
    store = Store(settings.bundle)
    number, engine, failed = load_served(store, load)
    models = models_of(engine, str(number))
    models.failed = failed
    follower = Follower(
        store,
        models,
        load=load,
        batcher=batcher,
        keep=settings.keep_versions,
        seconds=settings.poll_seconds,
        observer=metrics,
    )
    return models, follower


def _engine(settings: Settings, path: Path) -> Engine:
    """Return the engine of a bundle, verified and warm."""
    engine = Engine(
        load_bundle(path, public_key=settings.public_key),
        weights=settings.weights,
        session_bytes=settings.session_bytes,
        providers=_PROVIDERS[settings.device],
        threads=settings.threads,
    )
    engine.warm()
    return engine


def _batcher(settings: Settings, metrics: Metrics, engine: Engine, number: str) -> Batcher:
    """Return the batcher in front of a version's engine."""
    return Batcher(
        engine,
        limits=_limits(settings),
        runs=settings.runs,
        target=settings.run_seconds,
        # A version may lack a task that others have.
        weights={
            task.name: settings.task_weights[task.name]
            for task in engine.bundle.tasks
            if task.name in settings.task_weights
        },
        observer=metrics.version(number, engine.bundle.manifest.plan),
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        rows=settings.max_waiting_rows,
        task_rows=settings.max_task_rows,
        nbytes=settings.max_waiting_bytes,
    )


def _check_weighted(bundle: Bundle, tasks: Iterable[str]) -> None:
    names = {task.name for task in bundle.tasks}
    unknown = [f"{task!r} is no task of the bundle" for task in tasks if task not in names]
    if unknown:
        raise ConfigError("the weights of the tasks are wrong", unknown)
