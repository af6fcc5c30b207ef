"""deploy, promote, rollback, versions."""

from __future__ import annotations

import json
from pathlib import Path

from tests.runtime.handmade import write_bundle

from coterie.runtime.store import Store

from .conftest import Command


def test_a_store_from_its_first_version_to_a_rollback(coterie: Command, bundle: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    refused = coterie("deploy", bundle, "--store", store, "--canary", 10)
    assert refused.exit_code == 2
    assert "no bundle store" in refused.output
    assert coterie("deploy", bundle, "--store", store).exit_code == 0
    assert "version 2 is served" in coterie("deploy", bundle, "--store", store).output
    assert "version 3 answers 10 %" in coterie("deploy", bundle, "--store", store, "--canary", 10).output
    assert "version 3 is served" in coterie("promote", "--store", store).output
    assert coterie("promote", "--store", store).exit_code == 2
    assert "version 4 is asked 50 %" in coterie("deploy", bundle, "--store", store, "--shadow", 50).output
    shown = coterie("versions", "--store", store).output
    assert "4  tiny  shadow, 0.5 of the requests" in shown
    assert "3  tiny  served" in shown
    assert "version 3 is served" in coterie("rollback", "--store", store).output  # the trial is over
    assert "version 2 is served" in coterie("rollback", "--store", store).output
    assert "version 4 is served" in coterie("rollback", "--store", store, "--to", 4).output
    Store(store).mark(2, "no such operator")
    listed = json.loads(coterie("versions", "--store", store, "--json").output)
    assert (listed["current"], listed["history"]) == (4, [1, 2, 4])
    assert [each["state"] for each in listed["versions"]] == [
        "",
        "a server could not load it: no such operator",
        "",
        "served",
    ]
    pruned = coterie("versions", "--store", store, "--prune", 1, "--json").output
    assert "version 1 is removed" in pruned
    assert "version 3 is removed" in pruned
    assert Store(store).versions == (2, 4)


def test_what_is_no_bundle_is_not_deployed(coterie: Command, run: Path, bundle: Path, tmp_path: Path) -> None:
    assert "is a run, not a bundle" in coterie("deploy", run, "--store", tmp_path / "store").output
    assert not (tmp_path / "store").exists()
    both = coterie("deploy", bundle, "--store", tmp_path / "store", "--canary", 5, "--shadow", 5)
    assert (both.exit_code, "--shadow" in both.output) == (2, True)
    assert coterie("rollback", "--store", tmp_path).exit_code == 2


def test_a_bundle_of_other_inputs_and_tasks_is_deployed_with_a_word(
    coterie: Command, bundle: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    write_bundle(tmp_path / "other")
    assert "note" not in coterie("deploy", bundle, "--store", store).output
    assert "note" not in coterie("deploy", bundle, "--store", store).output
    said = coterie("deploy", tmp_path / "other", "--store", store, "--canary", 10)
    assert said.exit_code == 0
    assert "version 3 takes other inputs than version 2" in said.stderr
    assert "version 3 lacks tasks of version 2: " in said.stderr
    (store / "versions" / "2" / "manifest.json").unlink()
    assert coterie("deploy", bundle, "--store", store).exit_code == 0
