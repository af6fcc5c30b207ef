"""Keys of clients, and what ``serve`` is told of access."""

from __future__ import annotations

from pathlib import Path

import pytest

from coterie.runtime.serving.access._keys import read_keys

from .conftest import Command


def test_a_key_is_printed_once_and_can_be_taken_back(coterie: Command, tmp_path: Path) -> None:
    file = tmp_path / "access" / "keys.json"
    made = coterie("key", "shop", "--keys", file, "--task", "a*", "--task", "b")
    assert made.exit_code == 0, made.output
    key = made.stdout.strip()
    assert key.startswith("cot_")
    assert key.split("_", 2)[2] not in file.read_text(encoding="utf-8")
    (entry,) = read_keys(file)
    assert (entry.name, entry.tasks, entry.metrics) == ("shop", ("a*", "b"), False)
    assert coterie("key", "watch", "--keys", file, "--metrics").exit_code == 0
    again = coterie("key", "shop", "--keys", file)
    assert (again.exit_code, "another name" in again.output) == (2, True)
    assert coterie("key", "shop", "--keys", file, "--revoke").exit_code == 0
    assert [entry.name for entry in read_keys(file)] == ["watch"]
    assert coterie("key", "shop", "--keys", file, "--revoke").exit_code == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--keys", "nowhere.json"], "cannot be read"),
        (["--tls-cert", "a.pem", "--tls-key", "b.pem"], "a.pem: there is no such file"),
        (["--tls-client-ca", "a.pem"], "only over TLS"),
        (["--task-weight", "no-such-task=2"], "no task of the bundle"),
        (["--task-weight", "heavy"], "TASK=NUMBER"),
    ],
)
def test_mistakes_about_access_are_told_before_a_server_is_started(
    coterie: Command, bundle: Path, options: list[str], says: str
) -> None:
    done = coterie("serve", bundle, *options)
    assert done.exit_code == 2, done.output
    assert says in done.output
