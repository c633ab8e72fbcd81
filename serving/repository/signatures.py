"""
Signs versions, and refuses those that nobody trusted has signed.

Whoever may write to the models directory can put a version there; with keys, only who holds a private one can put one
there that is served. An Ed25519 signature covers name, number and digest of a version, so that it fits neither other
files, nor another number, nor another model. Private keys are PKCS#8, public ones SubjectPublicKeyInfo, both as PEM, as
``openssl genpkey -algorithm ed25519`` and ``openssl pkey -pubout`` make them.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from serving.protocol.errors import InvalidRequest, UntrustedVersion
from serving.repository.saved_model_files import digest
from serving.repository.stamp import Stamp

_PEM = re.compile(rb"-----BEGIN [^-]+-----.*?-----END [^-]+-----", re.DOTALL)


def make_key_pair(private: Path) -> Path:
    """
    Write a new private key, for its owner's eyes only, and the public one beside it as ``NAME.pub``, which is returned.

    Raises:
        InvalidRequest: One of the files is there already.
    """
    public = private.with_name(f"{private.name}.pub")
    if taken := [path for path in (private, public) if path.exists()]:
        raise InvalidRequest(f"{taken[0]} is there already: a key is never overwritten, name another file")
    key = Ed25519PrivateKey.generate()
    plain = serialization.NoEncryption()
    _write(private, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain), 0o600)
    public_format = serialization.PublicFormat.SubjectPublicKeyInfo
    _write(public, key.public_key().public_bytes(serialization.Encoding.PEM, public_format), 0o644)
    return public


def sign(key_file: Path, model: str, version: int, content: str) -> str:
    """
    The signature of a version as base64.

    Args:
        key_file: The private key.
        model: Its name.
        version: Its number.
        content: The digest of its files.

    Raises:
        InvalidRequest: The key cannot be used.
    """
    return base64.b64encode(_private_key(key_file).sign(_message(model, version, content))).decode()


def check_key(key_file: Path, trusted_keys_file: Path) -> None:
    """
    Raises:
        InvalidRequest: What this private key signs would be refused by who trusts those public ones.
    """
    own = _raw(_private_key(key_file).public_key())
    if own not in {_raw(key) for key in trusted_keys(trusted_keys_file)}:
        raise InvalidRequest(f"{trusted_keys_file} does not trust the key {key_file}: append its public key")


def check_signature(model: str, version: int, content: str, signature: str | None, trusted_keys_file: Path) -> None:
    """
    Refuse a version that no trusted key has signed. This is the check of an agent that fetches files from the registry.

    Args:
        model: Its name.
        version: Its number.
        content: The digest of the files as they are here, not as somebody says it is.
        signature: As `sign` made it: in the stamp, and in the registry's tag ``hotswap.signature``; None for none.
        trusted_keys_file: The public keys, one after another, read again each time.

    Raises:
        UntrustedVersion: It is not signed, or by none of these keys, or what is signed is something else.
        InvalidRequest: There are no such keys.
    """
    if signature is None:
        raise UntrustedVersion(f"Version {version} of {model} is not signed, and only signed ones are trusted here")
    try:
        given = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        given = b""
    for key in trusted_keys(trusted_keys_file):
        try:
            return key.verify(given, _message(model, version, content))
        except InvalidSignature:
            continue
    raise UntrustedVersion(
        f"Version {version} of {model} is not signed by a trusted key as these files under this name and number"
    )


def check_version(saved_model: Path, model: str, version: int, trusted_keys_file: Path) -> None:
    """
    The same for a version's directory, whose stamp has the signature. This is the check of a server.

    A symbolic link in it is refused: what it leads to is no part of the digest.
    """
    if any(path.is_symlink() for path in saved_model.rglob("*")):
        raise UntrustedVersion(
            f"Version {version} of {model} has a symbolic link in it, so its files are not all signed"
        )
    stamp = Stamp.read(saved_model) or Stamp()
    check_signature(model, version, digest(saved_model), stamp.signature, trusted_keys_file)


def trusted_keys(file: Path) -> list[Ed25519PublicKey]:
    """
    The public keys in a file.

    Raises:
        InvalidRequest: It has none, or something else.
    """
    keys = []
    for block in _PEM.findall(_read(file)):
        try:
            key = serialization.load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise InvalidRequest(f"{file} must hold public Ed25519 keys as PEM, and nothing else: see `hotswap keygen`")
        keys.append(key)
    if not keys:
        raise InvalidRequest(f"{file} holds no public key: `hotswap keygen FILE` makes FILE.pub")
    return keys


def _private_key(file: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(_read(file), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidRequest(f"{file} holds no private Ed25519 key without a password: `hotswap keygen FILE` makes one")
    return key


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as exc:
        raise InvalidRequest(f"The key file {file} cannot be read ({os.strerror(exc.errno or 0)})") from exc


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes_raw()


def _message(model: str, version: int, content: str) -> bytes:
    return f"hotswap version 1\n{model}\n{version}\n{content}\n".encode()
