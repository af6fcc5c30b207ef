"""The store on disk: versions that are never changed, and a pointer that is there whole or not at all."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from coterie.runtime import BundleError, IntegrityError, SignatureError, load_bundle
from coterie.runtime.bundle._signature import make_keys, sign_manifest
from coterie.runtime.manifest import MANIFEST, WEIGHTS
from coterie.runtime.store import Store, Trial, is_store

from ..handmade import HandMade, write_bundle, write_manifest


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store")


def served(store: Store) -> tuple[int, ...]:
    return store.pointer().history


def test_a_version_is_a_whole_copy_with_a_number(store: Store, features: HandMade, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(features.path, tmp_path / "bundle"))
    (bundle / "notes.txt").write_text("not in the manifest")
    assert [store.add(bundle), store.add(bundle)] == [1, 2]
    shutil.rmtree(bundle)
    copy = load_bundle(store.folder(1))
    assert copy.manifest == load_bundle(features.path).manifest
    assert {file.name for file in copy.path.iterdir()} == {MANIFEST, *copy.manifest.files}
    assert store.versions == (1, 2)
    with pytest.raises(BundleError, match="serves no version yet"):
        store.pointer()


def test_a_rollback_goes_back_one_version_at_a_time(store: Store, features: HandMade) -> None:
    for _ in range(3):
        store.switch(store.add(features.path))
    assert served(store) == (1, 2, 3)
    assert store.rollback().current == 2
    assert store.rollback().current == 1
    with pytest.raises(BundleError, match=r"first one served.*--to"):
        store.rollback()
    assert store.rollback(3).current == 3
    assert store.rollback().current == 1
    with pytest.raises(BundleError, match=r"no version 7: there is 1, 2, 3"):
        store.rollback(7)
    assert served(store) == (1,)


def test_a_number_is_not_given_twice(store: Store, features: HandMade) -> None:
    store.switch(store.add(features.path))
    store.switch(store.add(features.path))
    shutil.rmtree(store.folder(2))
    assert store.add(features.path) == 3


def test_old_versions_are_removed_but_for_those_in_use_and_those_to_go_back_to(
    store: Store, features: HandMade
) -> None:
    for _ in range(6):
        store.switch(store.add(features.path))
    store.rollback()  # 6 is newer than what is served now
    store.put_on_trial(Trial(version=2, share=0.1))
    store.mark(1, "it could not be loaded")
    serial = store.pointer().serial
    assert store.prune(1) == (1, 3)
    assert store.versions == (2, 4, 5, 6)
    assert served(store) == (4, 5)
    assert store.pointer().trial == Trial(version=2, share=0.1)
    assert store.pointer().serial > serial
    assert not store.failures()
    assert store.prune(1) == ()
    store.rollback()
    assert store.rollback().current == 4
    with pytest.raises(BundleError, match="first one served"):
        store.rollback()
    assert store.prune(0) == (2,)
    assert store.add(features.path) == 7
    with pytest.raises(ValueError, match="negative"):
        store.prune(-1)


def test_a_rollback_ends_a_trial_first(store: Store, features: HandMade) -> None:
    for _ in range(3):
        store.add(features.path)
    store.switch(1)
    store.switch(2)
    trial = Trial(version=3, share=0.1)
    assert store.put_on_trial(trial).trial == trial
    with pytest.raises(BundleError, match="2 is served already"):
        store.put_on_trial(Trial(version=2, share=0.5))
    after = store.rollback()
    assert (after.current, after.trial) == (2, None)
    store.put_on_trial(trial)
    assert store.switch(3).trial is None
    assert served(store) == (1, 2, 3)


def test_every_change_has_a_serial_of_its_own(store: Store, features: HandMade) -> None:
    store.add(features.path)
    store.add(features.path)
    changes = (
        lambda: store.switch(1),
        lambda: store.switch(1),
        lambda: store.switch(2),
        lambda: store.put_on_trial(None),
        store.rollback,
        lambda: store.rollback(1),
    )
    assert [change().serial for change in changes] == [1, 2, 3, 4, 5, 6]


def test_a_bad_bundle_is_refused_and_leaves_nothing(store: Store, features: HandMade, tmp_path: Path) -> None:
    store.switch(store.add(features.path))
    broken = Path(shutil.copytree(features.path, tmp_path / "broken"))
    (broken / WEIGHTS).write_bytes(b"short")
    with pytest.raises(IntegrityError, match="truncated"):
        store.add(broken)
    # Whole and well-formed to the manifest's eye; only whoever runs it can tell.
    mute = write_bundle(tmp_path / "mute").path
    shutil.copy(mute / "topic.onnx", mute / "router.onnx")
    write_manifest(mute, text=False)
    with pytest.raises(BundleError, match="router"):
        store.add(mute)
    assert [entry.name for entry in (store.path / "versions").iterdir()] == ["1"]
    assert served(store) == (1,)


def test_a_signature_is_asked_for_and_copied(store: Store, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle").path
    private, public = tmp_path / "key.pem", tmp_path / "key.pub.pem"
    make_keys(private, public)
    with pytest.raises(SignatureError, match="not signed"):
        store.add(bundle, public_key=public)
    sign_manifest(bundle, private)
    assert load_bundle(store.folder(store.add(bundle, public_key=public)), public_key=public)


def test_a_killed_writer_leaves_nothing_for_long(store: Store, features: HandMade) -> None:
    left = store.path / "versions" / ".partial-dead"
    left.mkdir()
    assert store.versions == ()
    assert store.add(features.path) == 1
    assert not left.exists()


def test_writers_take_turns(store: Store, features: HandMade) -> None:
    def deploy() -> None:
        store.switch(store.add(features.path))

    threads = [threading.Thread(target=deploy) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.versions == (1, 2, 3, 4, 5, 6)
    assert sorted(served(store)) == [1, 2, 3, 4, 5, 6]
    assert store.pointer().serial == 6


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"serial": 1, "history": []}', b'{"serial": 1, "history": [0]}', b"[" * 100_000],
)
def test_a_damaged_pointer_is_told_and_can_be_mended(
    store: Store, features: HandMade, content: bytes
) -> None:
    store.switch(store.add(features.path))
    (store.path / "current.json").write_bytes(content)
    with pytest.raises(BundleError, match="rollback --to"):
        store.pointer()
    assert store.rollback(1).current == 1
    assert store.pointer().history == (1,)


def test_what_cannot_be_served_for_a_damaged_pointer_is_not_left_in_the_store(
    store: Store, features: HandMade
) -> None:
    store.switch(store.add(features.path))
    (store.path / "current.json").write_bytes(b"{")
    with pytest.raises(BundleError, match="rollback --to"):
        store.add(features.path)
    assert [entry.name for entry in (store.path / "versions").iterdir() if entry.is_dir()] == ["1"]


def test_a_newer_store_is_refused(store: Store, features: HandMade) -> None:
    store.switch(store.add(features.path))
    (store.path / "current.json").write_text('{"schema_version": 2, "serial": 1, "history": [1]}')
    with pytest.raises(BundleError, match="upgrade"):
        store.pointer()


def test_only_a_new_or_empty_folder_becomes_a_store(features: HandMade, tmp_path: Path) -> None:
    assert not is_store(features.path)
    with pytest.raises(BundleError, match="new or empty"):
        Store.create(features.path)
    with pytest.raises(BundleError, match="coterie deploy"):
        Store(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert Store.create(tmp_path / "empty").versions == ()
    assert is_store(tmp_path / "empty")


def test_failures_are_noted_and_taken_back(store: Store, features: HandMade) -> None:
    store.add(features.path)
    store.mark(1, "no such operator")
    assert store.failures() == {1: "no such operator"}
    store.mark(1, None)
    assert store.failures() == {}
