"""``compose.yaml`` is what it says: pinned, closed, in order, and known to its schema."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

from tests.compose_file import COMPOSE, FOLDER, PROJECT, services

SERVICES = services()
ONCE = {name for name, service in SERVICES.items() if service["restart"] in ("on-failure", "no")}
NOT_VERIFIED = "tensorflow/serving:2.20.0"
"""pinned by its tag alone, as compose.yaml and docs/how-to/compose.md say"""


def test_the_file_is_one_of_compose() -> None:
    """It has the form that the Compose specification says, and names no network or volume that it does not declare."""
    text = yaml.safe_dump(yaml.safe_load(COMPOSE.read_text("utf-8")))
    # Engines take a tag beside the digest, and only look at the digest; this reader of the specification takes one.
    found = PyCompose.from_yaml(re.sub(r"(image: [^\s@]+):[^\s@:]+@", r"\1@", text))
    found.validate()
    assert set(found.to_spec().services or ()) == set(SERVICES)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_closed_and_pinned(name: str) -> None:
    """No service runs as root, writes into its image, gains rights, or changes with its tag; ports are of loopback."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert re.fullmatch(r"\S+:\S+@sha256:[0-9a-f]{64}", service["image"]) or service["image"] in {
        NOT_VERIFIED,
        "hotswap:local",
    }
    if name == "object-store-owner":
        assert (service["cap_add"], service["network_mode"]) == (["CHOWN"], "none")
    else:
        assert service["user"].partition(":")[0] not in ("0", "root")


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - ONCE))
def test_every_service_that_stays_is_watched(name: str) -> None:
    """It has a health check, and is started again."""
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_services_start_in_order() -> None:
    """What a service needs is there before it: healthy where it stays, done where it ends."""
    for service in SERVICES.values():
        for needed, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if needed in ONCE else "service_healthy"
            assert how["condition"] == expected
    assert set(SERVICES["mlflow"]["depends_on"]) == {"postgres", "bucket"}


def test_no_secret_is_in_the_file() -> None:
    """Every secret comes from .env, of which the example has each variable, and compose refuses to start without."""
    text = COMPOSE.read_text("utf-8")
    example = dict(re.findall(r"^(\w+)=(.*)$", (PROJECT / ".env.example").read_text("utf-8"), re.MULTILINE))
    wanted = set(re.findall(r"\$\{(\w+)", text))
    assert wanted == set(re.findall(r"\$\{(\w+):\?", text)) == example.keys() - {"COMPOSE_PROFILES"}
    assert ".env\n" in (PROJECT / ".gitignore").read_text("utf-8")
    assert ".env\n" in (PROJECT / ".dockerignore").read_text("utf-8")


@pytest.mark.parametrize(("ours", "theirs"), [("hotswap-serving-1", "serving-1"), ("hotswap-serving-2", "serving-2")])
def test_either_server_takes_the_place_of_the_other(ours: str, theirs: str) -> None:
    """By profile, with the same flags, directory and name; agents and proxy do not see a difference."""
    mine, other = SERVICES[ours], SERVICES[theirs]
    assert (mine["command"], mine["volumes"]) == (other["command"], other["volumes"])
    assert mine["networks"]["inside"]["aliases"] == [theirs]
    assert (mine["profiles"], other["profiles"]) == (["hotswap-server"], ["tensorflow-serving"])


def test_files_that_are_mounted_are_there() -> None:
    """Each is read-only."""
    mounted = [each for service in SERVICES.values() for each in service.get("volumes", []) if each.startswith("./")]
    assert all(each.endswith(":ro") and (PROJECT / each.split(":")[0]).exists() for each in mounted)
    folder = {f"./serving/compose/{path.name}" for path in FOLDER.iterdir()}
    assert folder == {each.split(":")[0] for each in mounted if "serving/compose" in each}


def test_base_images_are_pinned() -> None:
    """The image that is built begins with the same one in every stage, by digest, and does not run as root."""
    text = (PROJECT / "Dockerfile").read_text("utf-8")
    stages: list[Any] = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", text, re.MULTILINE)
    names = {name for _, name in stages if name}
    assert all(image in names or re.search(r"@sha256:[0-9a-f]{64}$", image) for image, _ in stages)
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["1000:1000"]
