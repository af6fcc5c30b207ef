"""Who made a bundle: what is signed, what is refused, and what does without any of it."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from coterie.runtime import ConfigError, IntegrityError, SignatureError, load, load_bundle
from coterie.runtime.bundle._signature import is_encrypted, make_keys, sign_manifest
from coterie.runtime.manifest import MANIFEST, SIGNATURE, WEIGHTS

from .handmade import HandMade, edit_manifest, write_manifest


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two pairs of keys, ours and theirs."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        make_keys(folder / f"{name}.pem", folder / f"{name}.pub.pem")
    return folder


@pytest.fixture
def signed(features: HandMade, keys: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(features.path, tmp_path / "bundle"))
    assert sign_manifest(folder, keys / "ours.pem") == folder / SIGNATURE
    return folder


def test_a_signed_bundle_loads_with_the_key_and_without(signed: Path, keys: Path) -> None:
    load(signed, public_key=keys / "ours.pub.pem")
    load(signed, public_key=str(keys / "ours.pub.pem"))
    load(signed, public_key=(keys / "ours.pub.pem").read_bytes())
    load(signed)


def test_an_unsigned_bundle_is_refused_where_a_key_is_given(features: HandMade, keys: Path) -> None:
    with pytest.raises(SignatureError, match=r"not signed.*coterie sign"):
        load_bundle(features.path, public_key=keys / "ours.pub.pem")


def test_the_signature_of_another_key_is_refused(signed: Path, keys: Path) -> None:
    with pytest.raises(SignatureError, match="of another key"):
        load_bundle(signed, public_key=keys / "theirs.pub.pem")


def test_a_forged_manifest_is_refused(signed: Path, keys: Path) -> None:
    raw = json.loads((signed / MANIFEST).read_text())
    edit_manifest(signed, name=f"{raw['name']}-2")
    load_bundle(signed)  # whoever asks for no signature cannot tell
    with pytest.raises(SignatureError, match="altered after it was signed"):
        load_bundle(signed, public_key=keys / "ours.pub.pem")


def test_forged_weights_are_refused_whether_or_not_the_manifest_fits(signed: Path, keys: Path) -> None:
    data = bytearray((signed / WEIGHTS).read_bytes())
    data[-2] ^= 1
    (signed / WEIGHTS).write_bytes(data)
    with pytest.raises(IntegrityError, match="altered"):
        load_bundle(signed, public_key=keys / "ours.pub.pem")
    signature = (signed / SIGNATURE).read_bytes()
    (signed / SIGNATURE).unlink()
    write_manifest(signed, text=False)
    (signed / SIGNATURE).write_bytes(signature)
    load_bundle(signed)
    with pytest.raises(SignatureError, match="does not fit"):
        load_bundle(signed, public_key=keys / "ours.pub.pem")


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"\0" * 63, b"x" * 65, b"x" * 100_000])
def test_what_is_no_signature_is_refused(signed: Path, keys: Path, content: bytes) -> None:
    (signed / SIGNATURE).write_bytes(content)
    with pytest.raises(IntegrityError):
        load_bundle(signed, public_key=keys / "ours.pub.pem")


def test_a_linked_signature_is_refused(signed: Path, keys: Path) -> None:
    shutil.move(signed / SIGNATURE, signed.parent / "elsewhere")
    (signed / SIGNATURE).symlink_to(signed.parent / "elsewhere")
    with pytest.raises(IntegrityError, match="link"):
        load_bundle(signed, public_key=keys / "ours.pub.pem")


def test_what_is_no_public_key_is_told(signed: Path, keys: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it is a private key: give the public one"):
        load_bundle(signed, public_key=keys / "ours.pem")
    with pytest.raises(ConfigError, match="no public key in PEM"):
        load_bundle(signed, public_key=b"nonsense")
    with pytest.raises(ConfigError, match="check the path"):
        load_bundle(signed, public_key=tmp_path / "nowhere.pem")
    rsa = b"-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n"
    with pytest.raises(ConfigError, match="no public key in PEM"):
        load_bundle(signed, public_key=rsa)


def test_a_key_of_another_kind_is_told(signed: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as pem
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ConfigError, match="not of Ed25519"):
        load_bundle(signed, public_key=public)
    secret = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    (tmp_path / "ec.pem").write_bytes(secret)
    with pytest.raises(ConfigError, match="not of Ed25519"):
        sign_manifest(signed, tmp_path / "ec.pem")


def test_a_private_key_is_private_and_never_overwritten(keys: Path) -> None:
    assert stat.S_IMODE((keys / "ours.pem").stat().st_mode) & 0o077 == 0
    with pytest.raises(ConfigError, match="is there already"):
        make_keys(keys / "ours.pem", keys / "new.pub.pem")
    assert not (keys / "new.pub.pem").exists()


def test_an_encrypted_key_needs_its_passphrase(signed: Path, keys: Path, tmp_path: Path) -> None:
    make_keys(tmp_path / "k.pem", tmp_path / "k.pub.pem", b"open sesame")
    assert is_encrypted(tmp_path / "k.pem")
    assert not is_encrypted(keys / "ours.pem")
    with pytest.raises(ConfigError, match="give its passphrase"):
        sign_manifest(signed, tmp_path / "k.pem")
    with pytest.raises(ConfigError, match="passphrase is wrong"):
        sign_manifest(signed, tmp_path / "k.pem", b"open barley")
    sign_manifest(signed, tmp_path / "k.pem", b"open sesame")
    load_bundle(signed, public_key=tmp_path / "k.pub.pem")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
def test_openssl_agrees(signed: Path, keys: Path) -> None:
    openssl = shutil.which("openssl") or "openssl"
    verify = [openssl, "pkeyutl", "-verify", "-pubin", "-inkey", str(keys / "ours.pub.pem"), "-rawin"]
    files = ["-in", str(signed / MANIFEST), "-sigfile", str(signed / SIGNATURE)]
    assert subprocess.run([*verify, *files], capture_output=True, check=False).returncode == 0
    edit_manifest(signed, name="other")
    assert subprocess.run([*verify, *files], capture_output=True, check=False).returncode != 0


def test_cryptography_is_imported_only_for_a_key(signed: Path, keys: Path) -> None:
    code = (
        "import sys, coterie.runtime\n"
        "coterie.runtime.load(sys.argv[1])\n"
        "print('cryptography' in sys.modules)\n"
        "coterie.runtime.load(sys.argv[1], public_key=sys.argv[2])\n"
        "print('cryptography' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(signed), str(keys / "ours.pub.pem")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.split() == ["False", "True"]
