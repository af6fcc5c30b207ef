"""A store of bundles on disk."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from pathlib import Path

from coterie.runtime.bundle import Bundle, load_bundle
from coterie.runtime.bundle._files import read_file
from coterie.runtime.bundle._signature import PublicKey
from coterie.runtime.durable import copy_file, flush_folder, locked, write_file
from coterie.runtime.engine import Engine
from coterie.runtime.errors import BundleError, RequestError
from coterie.runtime.manifest import MANIFEST, SIGNATURE
from coterie.runtime.store._pointer import POINTER, Pointer, Trial, parse_pointer

_VERSIONS = "versions"
_FAILED = "failed"
_LONGEST = 1 << 20
_SHOWN = 20


def is_store(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder is a store of bundles, and not a bundle."""
    return (Path(path) / _VERSIONS).is_dir() and not (Path(path) / MANIFEST).exists()


class Store:
    """A folder of versions, of which one is served.

    Any number of processes may read a store; writers take turns. A version is never changed: it is copied
    beside the others, verified, tried, and renamed into place.

    Args:
        path: The store's folder.

    Raises:
        BundleError: If there is no store.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).resolve()
        if not is_store(self.path):
            raise BundleError(
                f"there is no bundle store at {os.fspath(path)!r}: make one with "
                "coterie deploy BUNDLE --store FOLDER"
            )

    @classmethod
    def create(cls, path: str | os.PathLike[str]) -> Store:
        """Return the store at a path; an empty one, if nothing is there yet.

        Raises:
            BundleError: If something else is there.
        """
        folder = Path(path).resolve()
        if not is_store(folder):
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise BundleError(
                    f"{os.fspath(path)!r} is no bundle store: name a folder that is new or empty"
                )
            (folder / _VERSIONS).mkdir(parents=True, exist_ok=True)
            flush_folder(folder)
        return cls(folder)

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions there are, oldest first."""
        names = (entry.name for entry in (self.path / _VERSIONS).iterdir() if entry.is_dir())
        # A version on its way has a name that is no number.
        return tuple(sorted(int(name) for name in names if name.isascii() and name.isdigit()))

    @property
    def is_served(self) -> bool:
        """Whether any version was ever served: there is a pointer."""
        return (self.path / POINTER).exists()

    def pointer(self) -> Pointer:
        """Return what is served.

        Raises:
            BundleError: If nothing is, or ``current.json`` cannot be read.
        """
        try:
            return parse_pointer(read_file(self.path / POINTER, _LONGEST))
        except FileNotFoundError:
            raise BundleError("the store serves no version yet: coterie deploy one") from None

    def folder(self, number: int) -> Path:
        """Return a version's folder.

        Raises:
            BundleError: If there is no such version.
        """
        folder = self.path / _VERSIONS / str(number)
        if not folder.is_dir():
            shown = [*map(str, self.versions)]
            there = ", ".join(["...", *shown[-_SHOWN:]] if len(shown) > _SHOWN else shown) or "none"
            raise BundleError(f"the store has no version {number}: there is {there}")
        return folder

    def add(self, bundle: str | os.PathLike[str], *, public_key: PublicKey | None = None) -> int:
        """Copy a bundle into the store, verify and try the copy, and return its number; it is not served yet.

        Raises:
            BundleError: If it is no bundle, or one that cannot be loaded or asked, or ``current.json`` cannot
                be read.
            IntegrityError: If a file of it is missing, truncated, altered or foreign.
            SignatureError: If a key is given and the bundle is not signed with it.
        """
        source = load_bundle(bundle, public_key=public_key)
        versions = self.path / _VERSIONS
        partial = versions / f".partial-{secrets.token_hex(6)}"
        with locked(versions):
            for leftover in versions.glob(".partial-*"):  # of a writer that was killed: there is only one
                shutil.rmtree(leftover, ignore_errors=True)
            served = self._ever_served()
            try:
                _copy(source, partial)
                # A bundle that verifies but that ONNX Runtime refuses is found here, and not by the servers.
                _try(Engine(load_bundle(partial, public_key=public_key), threads=1))
                number = max((*self.versions, *served), default=0) + 1
                partial.rename(versions / str(number))
                flush_folder(versions)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return number

    def switch(self, number: int) -> Pointer:
        """Serve a version, and end a trial; running servers follow by themselves.

        Raises:
            BundleError: If there is no such version.
        """
        self.folder(number)
        with locked(self.path):
            if not self.is_served:
                return self._point(Pointer(serial=1, history=(number,)))
            return self._point(self.pointer().switched(number))

    def rollback(self, to: int | None = None) -> Pointer:
        """Serve a certain version again; without one, end the trial, or serve the version before.

        Raises:
            BundleError: If there is none before, or no such version.
        """
        with locked(self.path):
            if to is not None:
                self.folder(to)
            try:
                before = self.pointer()
            except BundleError:
                if to is None:
                    raise
                # The way out of a pointer that somebody has damaged.
                return self._point(Pointer(serial=secrets.randbits(32) + 1, history=(to,)))
            if to is None and before.trial is not None:
                return self._point(before.tried(None))
            after = before.back(to)
            self.folder(after.current)
            return self._point(after)

    def put_on_trial(self, trial: Trial | None) -> Pointer:
        """Try a version out beside the one that is served; ``None`` ends a trial.

        Raises:
            BundleError: If there is no such version, or it is the one that is served.
        """
        with locked(self.path):
            before = self.pointer()
            if trial is not None:
                self.folder(trial.version)
                if trial.version == before.current:
                    raise BundleError(f"version {trial.version} is served already: there is nothing to try")
            return self._point(before.tried(trial))

    def prune(self, keep: int = 1) -> tuple[int, ...]:
        """Remove old versions for good, and return which.

        What stays: the version that is served, so many of those that a rollback leads to, the one on trial,
        and whatever is newer than the one served, which may be on its way.

        Raises:
            BundleError: If nothing is served.
            ValueError: If ``keep`` is negative.
        """
        if keep < 0:
            raise ValueError(f"keep: {keep} is negative")
        versions = self.path / _VERSIONS
        with locked(self.path), locked(versions):
            pointer = self.pointer().shortened(keep + 1)
            kept = {*pointer.history, *([pointer.trial.version] if pointer.trial else [])}
            old = tuple(each for each in self.versions if each < pointer.current and each not in kept)
            self._point(pointer)
            for number in old:
                # A version is there whole or not at all; what a killed process leaves goes at the next add.
                leaving = versions / f".partial-{secrets.token_hex(6)}"
                (versions / str(number)).rename(leaving)
                shutil.rmtree(leaving, ignore_errors=True)
                self._failure(number).unlink(missing_ok=True)
        return old

    def failures(self) -> dict[int, str]:
        """Return which versions a server could not load, and why."""
        found = {}
        for number in self.versions:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, BundleError):
                raw = json.loads(read_file(self._failure(number), _LONGEST))
                found[number] = str(raw["why"])
        return found

    def mark(self, number: int, why: str | None) -> None:
        """Note that a server could not load a version, or with ``None`` that it could.

        A store that this process may only read is left as it is.
        """
        file = self._failure(number)
        with contextlib.suppress(OSError):
            if why is None:
                file.unlink(missing_ok=True)
                return
            file.parent.mkdir(exist_ok=True)
            write_file(
                file, (json.dumps({"version": number, "why": why}, ensure_ascii=False) + "\n").encode()
            )

    def _failure(self, number: int) -> Path:
        return self.path / _FAILED / f"{number}.json"

    def _ever_served(self) -> tuple[int, ...]:
        """Return the versions of the pointer: a number is not given twice, though its folder be removed."""
        return self.pointer().history if self.is_served else ()

    def _point(self, pointer: Pointer) -> Pointer:
        write_file(self.path / POINTER, pointer.dumps())
        return pointer


def _try(engine: Engine) -> None:
    try:
        engine.warm()
    except RequestError as error:
        raise BundleError(f"the bundle cannot answer a first question: {error}") from error


def _copy(bundle: Bundle, destination: Path) -> None:
    """Copy what the manifest lists and nothing else."""
    destination.mkdir()
    signature = [SIGNATURE] if (bundle.path / SIGNATURE).exists() else []
    for name in [MANIFEST, *signature, *bundle.manifest.files]:
        copy_file(bundle.path / name, destination / name)
    flush_folder(destination)
