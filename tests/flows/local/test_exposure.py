"""Nothing listens where strangers reach it without a token and a login, unless told so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clients.proxies import is_reachable_by_others
from flows.local.exposure import check_flags, check_pages, check_server
from flows.local.operator_http import answering
from flows.local.page_logins import mlflow_arguments, mlflow_environment, prefect_environment
from flows.settings import InvalidSettings, Settings, apply_environment
from tests.processes import hotswap, without_settings

PASSWORD = "correct horse battery"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """A token and a login, as the environment names them."""
    (tmp_path / "token").write_text("s3cret")
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    return {
        "HOTSWAP_TOKEN_FILE": str(tmp_path / "token"),
        "HOTSWAP_UI_USER": "ada",
        "HOTSWAP_UI_PASSWORD_FILE": str(tmp_path / "password"),
    }


def settings_with(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return Settings()


@pytest.mark.parametrize(
    ("host", "is_reachable"),
    [
        *((host, False) for host in ("127.0.0.1", "127.9.9.9", "::1", "localhost")),
        *((host, True) for host in ("0.0.0.0", "::", "", "10.0.0.1", "ml.example.com")),
    ],
)
def test_loopback_alone_is_out_of_reach(host: str, is_reachable: bool) -> None:
    assert is_reachable_by_others(host) is is_reachable


@pytest.mark.parametrize("command", ["up", "serve"])
def test_strangers_are_kept_out(command: str, files: dict[str, str], tmp_path: Path) -> None:
    """One sentence says what to set; nothing has been started or written."""
    directory = {"HOTSWAP_HOME": str(tmp_path / "home"), "HOTSWAP_MODELS_REPO": str(tmp_path / "models")}
    done = hotswap({**without_settings(), **directory, "HOTSWAP_HOST": "0.0.0.0"}, command)
    assert done.returncode == 1
    assert "HOTSWAP_TOKEN_FILE" in done.stderr
    assert "HOTSWAP_ALLOW_ANONYMOUS" in done.stderr
    assert not (tmp_path / "models").exists()


def test_a_token_is_for_the_server_and_a_login_for_the_pages(
    files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is missed by itself, and whoever says so does without."""
    open_settings = settings_with(monkeypatch, HOTSWAP_HOST="0.0.0.0")
    with pytest.raises(InvalidSettings, match="HOTSWAP_TOKEN_FILE"):
        check_server(open_settings, open_settings.host, has_token=False)
    with pytest.raises(InvalidSettings, match="HOTSWAP_UI_USER"):
        check_pages(open_settings)
    with pytest.raises(InvalidSettings, match="HOTSWAP_UI_USER"), answering(open_settings):
        pass
    with pytest.raises(InvalidSettings, match="HOTSWAP_TOKEN_FILE"):
        check_flags(Settings(), ["--host=127.0.0.1", "--token_file=token", "--token_file=", "--host=10.0.0.1"])
    check_flags(open_settings, ["--host=0.0.0.0", "--token_file=token"])
    check_pages(settings_with(monkeypatch, **files))
    told = settings_with(monkeypatch, HOTSWAP_ALLOW_ANONYMOUS="true", HOTSWAP_UI_USER="", HOTSWAP_UI_PASSWORD_FILE="")
    check_server(told, told.host, has_token=False)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HOTSWAP_UI_USER": ""}, "or none of them"),
        ({"HOTSWAP_UI_USER": "a:b"}, "without a colon"),
        ({"HOTSWAP_UI_PASSWORD_FILE": "/nowhere"}, "cannot be read"),
        ({"HOTSWAP_UI_PASSWORD_FILE": "short"}, "at least 12"),
    ],
)
def test_half_a_login_is_refused(
    variables: dict[str, str],
    expected: str,
    files: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pages that should ask for a password are never served without."""
    (tmp_path / "short").write_text("hunter2")
    monkeypatch.chdir(tmp_path)
    settings = settings_with(monkeypatch, **(files | variables))
    with pytest.raises(InvalidSettings, match=expected) as caught:
        check_pages(settings.model_copy(update={"host": "0.0.0.0"}))
    assert "hunter2" not in str(caught.value)


def test_the_login_goes_to_the_pages_of_this_stack_alone(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow and Prefect elsewhere, where others have set credentials or none, never get the password."""
    for name in ("PREFECT_API_URL", "PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_USERNAME"):
        monkeypatch.delenv(name, raising=False)
    settings = settings_with(monkeypatch, **files, HOTSWAP_HOME=str(tmp_path / "home"))
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere:4200/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere:5000")
    apply_environment(settings)
    assert PASSWORD not in "".join(os.environ.values())
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    apply_environment(settings)
    assert os.environ["PREFECT_API_AUTH_STRING"] == f"ada:{PASSWORD}"
    assert (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]) == ("ada", PASSWORD)


def test_pages_that_nobody_protects_are_started_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a login MLflow runs without its users; Prefect answers no page of another origin in any case."""
    settings = Settings()
    assert (mlflow_arguments(settings), mlflow_environment(settings)) == ((), {})
    url = "http://127.0.0.1:4200"
    assert prefect_environment(settings, url) == {"PREFECT_SERVER_CORS_ALLOWED_ORIGINS": url}
    named = settings_with(monkeypatch, HOTSWAP_ALLOWED_HOSTS="ml.example.com, other")
    hosts = mlflow_environment(named)["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert {"localhost:*", "127.0.0.1:*", "ml.example.com", "ml.example.com:*", "other"} <= set(hosts)
