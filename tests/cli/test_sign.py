"""Keys, signatures, and the commands that ask for them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .conftest import Command


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may sign."""
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def test_keys_are_made_a_bundle_is_signed_and_whoever_has_the_key_can_tell(
    coterie: Command, copy: Path, tmp_path: Path
) -> None:
    private, public = tmp_path / "keys" / "team.pem", tmp_path / "keys" / "team.pub.pem"
    made = coterie("keygen", tmp_path / "keys" / "team")
    assert made.exit_code == 0, made.output
    assert str(private) in made.output
    refused = coterie("inspect", copy, "--public-key", public)
    assert refused.exit_code == 2
    assert "not signed" in refused.output
    signed = coterie("sign", copy, "--key", private)
    assert signed.exit_code == 0, signed.output
    assert coterie("inspect", copy, "--public-key", public).exit_code == 0
    manifest = copy / "manifest.json"
    manifest.write_text(manifest.read_text(encoding="utf-8") + " ", encoding="utf-8")
    for command in (("inspect", copy), ("predict", copy, "--text", "x"), ("serve", copy)):
        done = coterie(*command, "--public-key", public)
        assert done.exit_code == 2
        assert "altered after it was signed" in done.output
    assert coterie("inspect", copy).exit_code == 0


def test_an_encrypted_key_asks_for_its_passphrase(coterie: Command, copy: Path, tmp_path: Path) -> None:
    made = coterie("keygen", tmp_path / "k", "--passphrase", stdin="sesame\nsesame\n")
    assert made.exit_code == 0, made.output
    assert b"ENCRYPTED" in (tmp_path / "k.pem").read_bytes()
    wrong = coterie("sign", copy, "--key", tmp_path / "k.pem", stdin="barley\n")
    assert wrong.exit_code == 2
    assert "passphrase is wrong" in wrong.output
    assert coterie("sign", copy, "--key", tmp_path / "k.pem", stdin="sesame\n").exit_code == 0


def test_a_damaged_bundle_is_not_signed(coterie: Command, copy: Path, tmp_path: Path) -> None:
    assert coterie("keygen", tmp_path / "k").exit_code == 0
    with (copy / "weights.safetensors").open("ab") as stream:
        stream.write(b"\0")
    done = coterie("sign", copy, "--key", tmp_path / "k.pem")
    assert done.exit_code == 2
    assert "too long" in done.output
    assert not (copy / "manifest.sig").exists()


def test_a_missing_key_is_told(coterie: Command, copy: Path, tmp_path: Path) -> None:
    done = coterie("sign", copy, "--key", tmp_path / "nowhere.pem")
    assert done.exit_code == 2
    assert "check the path" in done.output
