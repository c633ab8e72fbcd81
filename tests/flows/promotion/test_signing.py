"""With a key what is promoted is signed, and servers that trust it serve nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.promotion.undo import PromotionUndone
from flows.reports import doctor
from flows.settings import Settings
from serving.protocol.errors import InvalidRequest
from serving.repository.signatures import check_signature, check_version, make_key_pair
from tests.pipelines import Pipeline


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private = tmp_path / "key"
    return private, make_key_pair(private)


@pytest.fixture
def guarded(offline: Pipeline, keys: tuple[Path, Path], model_server: Any, tmp_path: Path) -> Pipeline:
    """A pipeline whose server serves only what the key has signed, which the pipeline itself has."""
    (tmp_path / "models.config").write_text("model_config_list {}")
    server = model_server(
        model_config_file=tmp_path / "models.config", trusted_keys_file=keys[1], max_num_load_retries=0
    )
    known = {"signing_key_file": keys[0], "trusted_keys_file": keys[1]}
    ports = {"rest_port": server.rest_port, "grpc_port": server.grpc_port, "server_timeout_seconds": 10.0}
    offline.settings = offline.settings.model_copy(update=known | ports)
    return offline


def test_a_signed_promotion_goes_live_and_an_unsigned_one_is_undone(guarded: Pipeline, keys: tuple[Path, Path]) -> None:
    """The signature is in the stamp, and in the registry for agents; what is not signed never gets a label."""
    version = guarded.promote()
    assert guarded.row(version).labels == ("stable",)
    check_version(guarded.repository.path(guarded.model, version), guarded.model, version, keys[1])
    stamp = guarded.repository.stamp(guarded.model, version)
    tags = guarded.registry._client.get_model_version(guarded.model, str(version)).tags
    check_signature(guarded.model, version, tags["hotswap.digest"], tags["hotswap.signature"], keys[1])
    assert stamp.signature == tags["hotswap.signature"]
    before = guarded.live()
    guarded.settings = guarded.settings.model_copy(update={"signing_key_file": None})
    with pytest.raises(PromotionUndone, match="is not signed"):
        guarded.promote()
    assert guarded.live() == before
    assert doctor.examine(guarded.settings) == []
    shutil.rmtree(guarded.repository.path(guarded.model, version) / "assets.extra")
    assert [each.what for each in doctor.examine(guarded.settings) if "is not signed" in each.what]


def test_keys_are_checked_before_anything_begins(offline: Pipeline, keys: tuple[Path, Path], tmp_path: Path) -> None:
    """A key that is missing, cannot be read or is not trusted is named before a training takes its time."""
    other = make_key_pair(tmp_path / "other")
    for private, trusted, expected in (
        (None, keys[1], "HOTSWAP_SIGNING_KEY_FILE"),
        (keys[0], other, "does not trust"),
        (tmp_path / "nowhere", None, "cannot be read"),
    ):
        offline.settings = offline.settings.model_copy(
            update={"signing_key_file": private, "trusted_keys_file": trusted}
        )
        with pytest.raises(InvalidRequest, match=expected):
            offline.deployment.check_keys()
    assert Settings().signing_key_file is None
