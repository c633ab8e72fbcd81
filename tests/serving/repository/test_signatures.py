"""Which versions are trusted: those that a trusted key has signed, with these files, under this name and number."""

from __future__ import annotations

import stat
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serving.protocol.errors import InvalidRequest, UntrustedVersion
from serving.protocol.model_spec import ModelSpec
from serving.protocol.version_status import State
from serving.repository.model_config import ModelEntry, render
from serving.repository.saved_model_files import digest
from serving.repository.signatures import check_key, check_signature, check_version, make_key_pair, sign, trusted_keys
from serving.repository.stamp import Stamp
from serving.repository.version_policy import All
from serving.startup import StartupError
from tests.waiting import until


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private key and the public one."""
    private = tmp_path / "key"
    return private, make_key_pair(private)


@pytest.fixture
def signed(keys: tuple[Path, Path], tiny_model: Any, tmp_path: Path) -> Path:
    """The directory of a signed version 1 of iris."""
    path: Path = tiny_model(tmp_path / "models" / "iris", 1)
    put_signature(path, keys[0], 1)
    return path


def put_signature(path: Path, key: Path, version: int) -> None:
    content = digest(path)
    Stamp(version=version, digest=content, signature=sign(key, "iris", version, content)).write(path)


def test_only_its_owner_can_read_a_private_key(keys: tuple[Path, Path]) -> None:
    """Files that are there already are never overwritten."""
    private, public = keys
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert public.name == "key.pub"
    before = private.read_bytes()
    with pytest.raises(InvalidRequest, match="never overwritten"):
        make_key_pair(private)
    private.unlink()
    with pytest.raises(InvalidRequest, match=r"key\.pub"):
        make_key_pair(private)
    assert before not in public.read_bytes()


def test_a_signed_version_is_trusted(signed: Path, keys: tuple[Path, Path]) -> None:
    """So it is when its key is one of several."""
    check_version(signed, "iris", 1, keys[1])
    others = make_key_pair(keys[0].with_name("other"))
    others.write_bytes(others.read_bytes() + keys[1].read_bytes())
    assert len(trusted_keys(others)) == 2
    check_version(signed, "iris", 1, others)


@pytest.mark.parametrize(("model", "version"), [("iris", 2), ("other", 1)], ids=["another number", "another model"])
def test_a_signature_is_for_one_name_and_number(
    model: str, version: int, signed: Path, keys: tuple[Path, Path]
) -> None:
    """An old version that somebody puts back under a new number is refused, and so is a model in place of another."""
    with pytest.raises(UntrustedVersion, match="not signed by a trusted key"):
        check_version(signed, model, version, keys[1])


def test_changed_files_are_not_trusted(signed: Path, keys: tuple[Path, Path]) -> None:
    """Neither a changed file, nor one that is added, nor another digest in the stamp passes."""
    (signed / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b"")
    with pytest.raises(UntrustedVersion):
        check_version(signed, "iris", 1, keys[1])
    stamp = Stamp.read(signed)
    assert stamp is not None
    replace(stamp, digest=digest(signed)).write(signed)
    with pytest.raises(UntrustedVersion):
        check_version(signed, "iris", 1, keys[1])


def test_links_are_not_trusted(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    """What a symbolic link leads to is in no digest."""
    (tmp_path / "elsewhere").mkdir()
    (signed / "assets").mkdir(exist_ok=True)
    (signed / "assets" / "more").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UntrustedVersion, match="symbolic link"):
        check_version(signed, "iris", 1, keys[1])


@pytest.mark.parametrize("given", [None, "", "no base64!", "AAAA", "é"])
def test_what_is_no_signature_is_refused(given: str | None, keys: tuple[Path, Path]) -> None:
    """Nothing that stands in place of a signature passes, or ends in another error."""
    with pytest.raises(UntrustedVersion):
        check_signature("iris", 1, "0" * 64, given, keys[1])


def test_keys_of_openssl_fit(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    """A key that was made by other tools signs too; one with a password or of another kind is refused."""
    own, other = tmp_path / "openssl.pem", tmp_path / "rsa.pem"
    for arguments in (
        ["genpkey", "-algorithm", "ed25519", "-out", str(own)],
        ["pkey", "-in", str(own), "-pubout", "-out", f"{own}.pub"],
        ["genpkey", "-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(other)],
        ["pkey", "-in", str(own), "-aes256", "-passout", "pass:x", "-out", f"{own}.locked"],
    ):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)
    check_signature("iris", 1, "ab", sign(own, "iris", 1, "ab"), Path(f"{own}.pub"))
    check_key(own, Path(f"{own}.pub"))
    with pytest.raises(InvalidRequest, match="does not trust"):
        check_key(own, keys[1])
    for refused in (other, Path(f"{own}.locked"), keys[1], tmp_path / "missing"):
        with pytest.raises(InvalidRequest):
            sign(refused, "iris", 1, "ab")
    for refused in (other, own, tmp_path / "missing"):
        with pytest.raises(InvalidRequest):
            trusted_keys(refused)


def test_a_server_refuses_what_is_not_signed(
    keys: tuple[Path, Path], signed: Path, tiny_model: Any, model_server: Any, tmp_path: Path
) -> None:
    """It serves what is signed, says why it refuses the others, and knows a new key without a restart."""
    tiny_model(signed.parent, 2)
    other = tmp_path / "other"
    other_public = make_key_pair(other)
    config = tmp_path / "models.config"
    config.write_text(render([ModelEntry("iris", str(signed.parent), All())]))
    server = model_server(
        model_config_file=config, trusted_keys_file=keys[1], require_all_models=False, max_num_load_retries=0
    )
    models = server.data_plane.models

    def refused(version: int) -> bool:
        found = {status.version: status for status in models.status(ModelSpec("iris"))}.get(version)
        return found is not None and found.state is State.END and "signed" in found.message

    until(lambda: models.servable("iris", 1) is not None and refused(2))
    put_signature(tiny_model(tmp_path, 3), other, 3)
    (tmp_path / "3").rename(signed.parent / "3")
    until(lambda: refused(3))
    keys[1].write_bytes(keys[1].read_bytes() + other_public.read_bytes())
    put_signature(tiny_model(tmp_path, 4), other, 4)
    (tmp_path / "4").rename(signed.parent / "4")
    until(lambda: models.servable("iris", 4) is not None)


def test_a_server_without_keys_to_check_with_does_not_start(model_server: Any, signed: Path, tmp_path: Path) -> None:
    """A file that holds no public key protects nothing."""
    (tmp_path / "empty").touch()
    with pytest.raises(StartupError, match="no public key"):
        model_server(model_base_path=str(signed.parent), trusted_keys_file=tmp_path / "empty")
