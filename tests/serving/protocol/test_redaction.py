"""What of a text may be shown."""

from __future__ import annotations

import io
import logging
import sys
import time
from pathlib import Path

import pytest

from clients.rest_client import RestClient
from flows.journal import next_record
from serving.protocol.errors import HotswapError, RepositoryError, ServerUnavailable
from serving.protocol.redaction import redact_error, redact_logs, redacted, redacted_output

SECRET = "hunter-2/of 7"
QUOTED = "hunter-2%2Fof%207"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://ada:{QUOTED}@db.example:5432/mlflow",
        f"postgresql+psycopg://ada:{QUOTED}@db.example/mlflow?sslmode=require&sslpassword={QUOTED}",
        f"http://ada:{QUOTED}@[::1]:5000/api",
        f"https://{QUOTED}@mlflow.example/",
        f"connection to 'mysql://ada:{QUOTED}@db/x' failed: (ada:{QUOTED}@db)",
        f"https://mlflow.example/?token={QUOTED}",
        f"https://store.example/a?X-Amz-Signature=ab&api_key={QUOTED}",
        f"sqlite:////m.db?password={QUOTED}&timeout=3",
        f"Authorization: Bearer {QUOTED.replace('%', '')}",
        f"host=db user=ada password={QUOTED} dbname=mlflow",
        f"password={QUOTED}",
        f"connect(user='ada', password={QUOTED})",
    ],
)
def test_addresses_and_headers_show_no_secret(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither as it is nor as an address spells it, whatever stands around it."""
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    shown = redacted(text)
    assert "hunter" not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MLFLOW_TRACKING_PASSWORD", SECRET),
        ("MLFLOW_TRACKING_TOKEN", SECRET),
        ("PREFECT_API_KEY", SECRET),
        ("PREFECT_API_AUTH_STRING", f"ada:{SECRET}"),
        ("PREFECT_SERVER_API_AUTH_STRING", f"ada:{SECRET}"),
        ("PREFECT_API_DATABASE_CONNECTION_URL", f"postgresql+asyncpg://ada:{QUOTED}@db/prefect"),
        ("HOTSWAP_SERVING_ENDPOINTS", f"http://ada:{QUOTED}@10.0.0.1:8501 10.0.0.1:8500"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", SECRET),
    ],
)
def test_the_secrets_of_the_environment_are_not_shown(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a library quotes nothing but the secret."""
    monkeypatch.setenv(name, value)
    assert redacted(f"refused: '{SECRET}', also as {QUOTED}") == "refused: '***', also as ***"


@pytest.mark.parametrize(
    "address",
    [
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/",
        "mailtos://ada:TIiajkdnlazkcOXrIdevi7FQ@example.org?to=ops@example.org",
        "https://hooks.example.org/services/TIiajkdnlazkcOXrIdevi7FQ",
        "json://127.0.0.1:8080/?+X-Token=TIiajkdnlazkcOXrIdevi7FQ",
        "tgram://123456789:TIiajkdnlazkcOXrIdevi7FQ/12315544/",
    ],
)
def test_addresses_that_are_notified_show_no_secret(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apprise has tokens anywhere in them; hosts and plain words stay, as they are in other messages too."""
    monkeypatch.setenv("HOTSWAP_NOTIFY", f"json://127.0.0.1:1 {address}")
    shown = redacted(f"refused {address}, by TIiajkdnlazkcOXrIdevi7FQ, services to example.org and 127.0.0.1")
    assert "TIiajkdn" not in shown
    assert shown.endswith("by ***, services to example.org and 127.0.0.1")


def test_the_token_of_the_token_file_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file may be named, what is in it not."""
    (tmp_path / "token").write_text(f"{SECRET}\n")
    monkeypatch.setenv("HOTSWAP_TOKEN_FILE", str(tmp_path / "token"))
    assert redacted(f"{tmp_path}/token holds {SECRET}") == f"{tmp_path}/token holds ***"


@pytest.mark.parametrize(
    "text",
    [
        "--use_alts_credentials=false",
        "MLflow at http://127.0.0.1:5000 cannot be read: set MLFLOW_TRACKING_PASSWORD",
        "ada@example.org published version 3, see https://example.org/a?page=2",
        '{"token": 1, "tokens=": 2}',
        "version published model=iris version=1 who=root@host",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    """Users, hosts, paths and words about secrets are what a message is for."""
    assert redacted(text) == text


@pytest.mark.parametrize("name", ["PWD", "OLDPWD", "SSH_ASKPASS", "GOOGLE_APPLICATION_CREDENTIALS", "TOKEN_FILE"])
def test_paths_that_the_environment_holds_stay(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every variable whose name has such a word in it holds a secret."""
    monkeypatch.setenv(name, "/home/ada/project")
    assert redacted("see /home/ada/project/logs") == "see /home/ada/project/logs"


def test_a_large_text_is_redacted_in_no_time() -> None:
    """Ten megabytes without a space take less than a second."""
    started = time.process_time()
    redacted("a" * 5_000_000 + "://" + "?password" * 500_000)
    assert time.process_time() - started < 1


def test_logs_and_their_tracebacks_show_no_secret() -> None:
    """Of every library in the process, as the records themselves are redacted."""
    before, lines = logging.getLogRecordFactory(), io.StringIO()
    handler = logging.StreamHandler(lines)
    log = logging.getLogger("some.library")
    log.addHandler(handler)
    redact_logs()
    try:
        try:
            raise ValueError(f"http://ada:{QUOTED}@db is no database")
        except ValueError:
            log.exception("cannot open %s as %d", f"http://ada:{QUOTED}@db", 1)
    finally:
        logging.setLogRecordFactory(before)
        log.removeHandler(handler)
    assert "cannot open http://ada:***@db as 1" in lines.getvalue()
    assert "ValueError: http://ada:***@db is no database" in lines.getvalue()
    assert "hunter" not in lines.getvalue()


def test_output_shows_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    """On both streams, while everything else arrives as it is."""
    with redacted_output():
        print(f"at http://ada:{QUOTED}@db")
        print(f"not at http://ada:{QUOTED}@db", file=sys.stderr)
    assert capsys.readouterr() == ("at http://ada:***@db\n", "not at http://ada:***@db\n")


def test_errors_and_the_journal_show_no_secret() -> None:
    """An error's text goes to logs, tags and pages: it is redacted wherever it goes."""
    text = f"no answer from http://ada:{QUOTED}@db"
    assert str(HotswapError(text)) == str(RepositoryError(text)) == "no answer from http://ada:***@db"
    record = next_record("", "undo", {"why": text, "labels": {"a": text}, "added": [1]})
    shown = "no answer from http://ada:***@db"
    assert (record["why"], record["labels"], record["added"]) == (shown, {"a": shown}, [1])


def test_an_error_that_somebody_keeps_has_no_secret() -> None:
    """Nor have those that it came from; what its parts are stays, and an error of the system names its file."""
    error = ValueError(f"http://ada:{QUOTED}@db is no database", 7)
    error.__cause__ = FileNotFoundError(2, "No such file", f"/data?password={QUOTED}")
    redact_error(error)
    assert error.args == ("http://ada:***@db is no database", 7)
    assert str(error.__cause__) == "[Errno 2] No such file: '/data?password=***'"


def test_a_client_does_not_show_the_password_of_its_address() -> None:
    """Nobody listens there, and the error says so without it."""
    with (
        RestClient(f"http://ada:{QUOTED}@127.0.0.1:1", 0.5) as client,
        pytest.raises(ServerUnavailable, match=r"http://ada:\*\*\*@127\.0\.0\.1:1 cannot be reached"),
    ):
        client.status("iris")
