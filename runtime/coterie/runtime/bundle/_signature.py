"""Who made a bundle: an Ed25519 signature of its manifest, and through that of every file's checksum.

The signature lies beside the manifest, in ``manifest.sig``: 64 bytes over the manifest's own bytes, so that
other programs can check it too (``openssl pkeyutl -verify -rawin``). It is in no list: a signed bundle is
otherwise the same, and signing it again needs no new export.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from coterie.runtime.bundle._files import read_file
from coterie.runtime.durable import write_file
from coterie.runtime.errors import BundleError, ConfigError, IntegrityError, MissingExtraError, SignatureError
from coterie.runtime.manifest import MANIFEST, SIGNATURE

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PublicKey = str | os.PathLike[str] | bytes
"""An Ed25519 public key in PEM: its file, or its bytes."""

_SIGNATURE_BYTES = 64
_LONGEST_KEY = 1 << 16
_BAD_KEY = "the signature cannot be checked"


def check_signature(folder: Path, manifest: bytes, public_key: PublicKey) -> None:
    """Check that a manifest's bytes are signed by the owner of a key.

    Raises:
        SignatureError: If there is no signature, or it is not of these bytes and this key.
        ConfigError: If the key is no Ed25519 public key in PEM.
        MissingExtraError: If ``coterie[sign]`` is not installed.
    """
    key = _public_key(public_key)
    from cryptography.exceptions import InvalidSignature

    try:
        signature = read_file(folder / SIGNATURE, _SIGNATURE_BYTES)
    except FileNotFoundError:
        raise SignatureError(
            f"the bundle is not signed, and a public key was given: there is no {SIGNATURE} beside its "
            f"{MANIFEST}; sign it with coterie sign, or get it from whoever holds the private key"
        ) from None
    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        raise SignatureError(
            f"{SIGNATURE} does not fit: {MANIFEST} was altered after it was signed, or the signature is of "
            "another key; do not use the bundle, get it again from whoever signed it"
        ) from None


def sign_manifest(folder: Path, private_key: Path, passphrase: bytes | None = None) -> Path:
    """Sign the manifest of a bundle and return the signature's file, which replaces one that is there.

    Args:
        folder: The bundle, which the caller has verified: a signature vouches for what the manifest says.
        private_key: An Ed25519 private key in PEM.
        passphrase: What the key is encrypted with, if it is.

    Raises:
        BundleError: If there is no manifest.
        ConfigError: If the key is none, or the passphrase is wrong.
        MissingExtraError: If ``coterie[sign]`` is not installed.
    """
    key = _private_key(private_key, passphrase)
    try:
        manifest = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(
            f"{MANIFEST} cannot be read ({error.strerror}): give the bundle's folder"
        ) from error
    file = folder / SIGNATURE
    write_file(file, key.sign(manifest), mode=0o644)
    return file


def make_keys(private_key: Path, public_key: Path, passphrase: bytes | None = None) -> None:
    """Make a pair of keys, both in PEM; only the owner can read the private one.

    Args:
        private_key: File to write: PKCS #8, encrypted if there is a passphrase.
        public_key: File to write.
        passphrase: What to encrypt the private key with.

    Raises:
        ConfigError: If a file is there already: a key that is lost cannot be made again.
        MissingExtraError: If ``coterie[sign]`` is not installed.
    """
    with _extra():
        from cryptography.hazmat.primitives import serialization as pem
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    there = [
        f"{file} is there already: choose another name" for file in (private_key, public_key) if file.exists()
    ]
    if there:
        raise ConfigError("the keys cannot be written", there)
    key = Ed25519PrivateKey.generate()
    encryption = pem.BestAvailableEncryption(passphrase) if passphrase else pem.NoEncryption()
    secret = key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, encryption)
    public = key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
    write_file(private_key, secret, mode=0o600)
    write_file(public_key, public, mode=0o644)


def is_encrypted(private_key: Path) -> bool:
    """Return whether a private key needs a passphrase."""
    with contextlib.suppress(OSError):
        return b"ENCRYPTED PRIVATE KEY" in private_key.read_bytes()[:_LONGEST_KEY]
    return False


def _public_key(given: PublicKey) -> Ed25519PublicKey:
    with _extra():
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    content = given if isinstance(given, bytes) else _read_key(Path(given))
    try:
        key = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        hint = "; it is a private key: give the public one" if b"PRIVATE KEY" in content else ""
        raise ConfigError(_BAD_KEY, [f"public key: it is no public key in PEM{hint}"]) from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(_BAD_KEY, ["public key: it is not of Ed25519; coterie keygen makes such a pair"])
    return key


def _private_key(file: Path, passphrase: bytes | None) -> Ed25519PrivateKey:
    title = "the bundle cannot be signed"
    with _extra():
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    try:
        key = load_pem_private_key(_read_key(file), passphrase)
    except TypeError as error:
        state = (
            "not encrypted, and a passphrase was given" if passphrase else "encrypted: give its passphrase"
        )
        raise ConfigError(title, [f"private key: it is {state}"]) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        problem = "the passphrase is wrong" if passphrase else "it is no private key in PEM"
        raise ConfigError(title, [f"private key: {problem}"]) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(title, ["private key: it is not of Ed25519; coterie keygen makes such a pair"])
    return key


def _read_key(file: Path) -> bytes:
    try:
        return read_file(file.resolve(), _LONGEST_KEY)
    except (OSError, IntegrityError) as error:
        raise ConfigError("the key cannot be read", [f"{file}: check the path"]) from error


@contextlib.contextmanager
def _extra() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError("sign", "signing bundles") from error
