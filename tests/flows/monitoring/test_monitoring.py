"""What Prometheus and Grafana are given: metrics, alert rules and a dashboard that fit together."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from flows.local.operator_http import answering
from flows.monitoring.exposition import Exposition
from flows.monitoring.trainings import count_run
from flows.promotion import rollback
from flows.promotion.undo import PromotionUndone
from flows.reconciliation.repair import repair
from flows.tallies import Tally
from tests.conftest import ModelServer, TinyModel, wait_available
from tests.faults.points import environment
from tests.pipelines import ROWS, Pipeline
from tests.ports import free_ports
from tests.processes import running
from tests.waiting import until

MONITORING = Path(__file__).parents[3] / "serving" / "monitoring"
NAME = re.compile(r"(?<![\w:$])(:tensorflow:serving:[\w:]+|hotswap_\w+|process_\w+)")
TENSORFLOW_SERVINGS = re.compile(r"^:tensorflow:serving:\S+ ")


@pytest.fixture
def server_page(tiny_model: TinyModel, model_server: ModelServer, tmp_path: Path) -> str:
    """The page of a server after a real load: answers, refusals and unknown models, over REST."""
    for version in (1, 2):
        tiny_model(tmp_path / "served" / "tiny", version)
    (tmp_path / "monitoring.config").write_text("prometheus_config { enable: true }")
    (tmp_path / "models.config").write_text(
        f'model_config_list {{ config {{ name: "tiny" base_path: "{tmp_path}/served/tiny" model_platform: "tensorflow" '
        "model_version_policy { all {} } "
        'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 } } }'
    )
    server = model_server(
        model_config_file=tmp_path / "models.config",
        monitoring_config_file=tmp_path / "monitoring.config",
        allow_version_labels_for_unavailable_models=True,
    )
    wait_available(server, "tiny", 1, 2)
    url = f"http://127.0.0.1:{server.rest_port}"
    good, bad = {"instances": ROWS.tolist()}, {"instances": [1.0, 2.0]}
    asked = [("tiny", good)] * 200 + [("tiny", bad)] * 5 + [("unknown", good)] * 3
    with ThreadPoolExecutor(8) as pool:
        statuses = list(
            pool.map(
                lambda it: requests.post(f"{url}/v1/models/{it[0]}:predict", json=it[1], timeout=10).status_code, asked
            )
        )
    assert {status: statuses.count(status) for status in set(statuses)} == {200: 200, 400: 5, 404: 3}
    return requests.get(f"{url}/monitoring/prometheus/metrics", timeout=10).text


@pytest.fixture
def operator_page(pipeline: Pipeline) -> Iterator[str]:
    """The page of an operator after promotions, an undo, a rollback, a repair and two trainings."""
    pipeline.settings = pipeline.settings.model_copy(
        update={"notify": SecretStr("json://127.0.0.1:1"), "operator_port": free_ports(1)[0]}
    )
    pipeline.promote(1)
    pipeline.promote(2)
    with pytest.raises(PromotionUndone):
        pipeline.promote(3, expected_kind=1)
    rollback.rollback(pipeline.deployment)
    pipeline.registry.set_alias(pipeline.model, "champion", None)
    repair(pipeline.deployment)
    for verdict, seconds in (("passed", 3.5), ("rejected", 70.0)):
        count_run(pipeline.settings, pipeline.model, verdict, {"load": 0.5, "train": seconds}, time.time())
    (pipeline.settings.home / "drift").mkdir(exist_ok=True)
    (pipeline.settings.home / "drift" / f"{pipeline.model}.json").write_text(json.dumps(drift_fact(pipeline.model)))
    with answering(pipeline.settings):
        yield requests.get(f"http://127.0.0.1:{pipeline.settings.operator_port}/metrics", timeout=10).text


@pytest.fixture
def agent_page(pipeline: Pipeline, tmp_path: Path) -> Iterator[str]:
    """The page of a publish agent, once it has read the registry."""
    pipeline.repository.check_writable()
    (port,) = free_ports(1)
    settings = pipeline.settings.model_copy(update={"models_repo": tmp_path / "replica"})
    arguments = ("--repository", str(pipeline.repository.identity()), "--metrics-port", str(port))
    agent = running({**os.environ, **environment(settings)}, "agent", *arguments)

    def has_read() -> str:
        with suppress(requests.ConnectionError):
            page = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
            return page if value(page, "hotswap_agent_registry_read_timestamp_seconds") else ""
        return ""

    yield until(has_read)
    agent.send_signal(signal.SIGTERM)
    agent.communicate()


def drift_fact(model: str) -> dict[str, Any]:
    """What `hotswap drift` keeps."""
    compared = {"columns": [{"name": "age", "psi": 0.4}], "answers": [], "live": {"name": "accuracy", "value": 0.9}}
    return {"model": model, "time": "2026-01-01T00:00:00+00:00", "rows": 500, "drifted": ["age"], **compared}


def samples(page: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample, by name and labels; Prometheus's client, which reads them, wants every counter to be a total."""
    return {
        (
            each.name if f"\n{each.name}" in page else each.name[: -len("_total")],
            frozenset(each.labels.items()),
        ): each.value
        for family in text_string_to_metric_families(page)
        for each in family.samples
    }


def value(page: str, name: str, **labels: str) -> float:
    (found,) = (v for (n, given), v in samples(page).items() if n == name and frozenset(labels.items()) <= given)
    return found


def test_a_server_tells_process_versions_states_and_labels(server_page: str) -> None:
    """Beside TensorFlow Serving's metrics, under names of their own."""
    assert value(server_page, "hotswap_model_version_state", model_name="tiny", version="2", state="AVAILABLE") == 1
    assert value(server_page, "hotswap_model_label_version", model_name="tiny", label="stable") == 1
    assert value(server_page, "process_resident_memory_bytes") > 1e7
    assert value(server_page, ":tensorflow:serving:request_count", model_name="tiny", status="OK") == 200


def test_the_operator_tells_what_the_pipeline_has_done(operator_page: str, pipeline: Pipeline) -> None:
    """Swaps, verdicts, durations, repairs and events, of whatever process they were."""
    model = {"model": pipeline.model}
    assert value(operator_page, "hotswap_champion_version", **model) == 1
    assert value(operator_page, "hotswap_label_version", **model, label="stable") == 1
    changes = {
        action: value(operator_page, "hotswap_changes_total", **model, action=action)
        for action in ("publish", "promote", "undo", "rollback", "retire")
    }
    assert changes == {"publish": 3, "promote": 2, "undo": 1, "rollback": 1, "retire": 0}
    assert value(operator_page, "hotswap_gate_verdicts_total", **model, verdict="passed") == 1
    assert value(operator_page, "hotswap_gate_verdicts_total", **model, verdict="inconclusive") == 0
    assert value(operator_page, "hotswap_training_duration_seconds_sum", **model) == 74.5
    assert value(operator_page, "hotswap_training_duration_seconds_bucket", **model, le="60.0") == 1
    assert value(operator_page, "hotswap_training_step_seconds", **model, step="train") == 70
    assert value(operator_page, "hotswap_reconciles_total", **model, outcome="repaired") == 1
    assert value(operator_page, "hotswap_events_total", kind="rolled-back") >= 1
    assert value(operator_page, "hotswap_events_waiting", channel="notify") >= 5
    assert value(operator_page, "hotswap_drifted_columns", **model) == 1


def test_metrics_follow_the_journal(pipeline: Pipeline) -> None:
    """What has changed since the last scrape is read again; a journal that cannot be read is left out."""
    exposition = Exposition(pipeline.settings)
    pipeline.promote(1)
    assert value(exposition.page().decode(), "hotswap_champion_version", model=pipeline.model) == 1
    pipeline.promote(2)
    assert value(exposition.page().decode(), "hotswap_champion_version", model=pipeline.model) == 2
    pipeline.journal.path.write_text("not what was written\n")
    assert f'hotswap_champion_version{{model="{pipeline.model}"}}' not in exposition.page().decode()


def test_many_processes_count_together(tmp_path: Path) -> None:
    """None of the counts is lost, and a file that is damaged is begun anew."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: Tally(tmp_path).count("events", "down"), range(40)))
    assert Tally(tmp_path).read() == {"events": {'["down"]': 40}}
    (tmp_path / "monitoring" / "tallies.json").write_text("{")
    Tally(tmp_path).count("events", "down")
    assert Tally(tmp_path).read() == {"events": {'["down"]': 1}}


@pytest.mark.needs("promtool")
def test_the_pages_are_as_prometheus_wants_them(server_page: str, operator_page: str, agent_page: str) -> None:
    """promtool has no remark but on the names, which are TensorFlow Serving's."""
    for page in (server_page, operator_page, agent_page):
        done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False)
        remarks = (done.stdout + done.stderr).splitlines()
        assert [line for line in remarks if not TENSORFLOW_SERVINGS.match(line) or "help" in line.lower()] == []
        assert done.returncode in ((3,) if page is server_page else (0,))


@pytest.mark.needs("promtool")
@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "config", str(MONITORING / "prometheus.yml")],
        ["check", "rules", str(MONITORING / "alerts.yml")],
        ["test", "rules", str(Path(__file__).with_name("alerts_test.yml"))],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_the_files_are_valid_and_the_alerts_fire(arguments: list[str]) -> None:
    """Each alert fires for its cause, and none while all is well."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_and_alerts_use_metrics_that_exist(server_page: str, operator_page: str, agent_page: str) -> None:
    """Every name in them is exported after a real load, with every label that it is selected by."""
    exported: dict[str, set[str]] = {}
    pages = (server_page, operator_page, agent_page)
    for name, labels in (sample for page in pages for sample in samples(page)):
        exported.setdefault(name, set()).update(label for label, _ in labels)
    typed = set(re.findall(r"^# TYPE (\S+)", "".join(pages), re.MULTILINE))
    used = set()
    for expression in expressions():
        for name in NAME.findall(expression):
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            assert name in exported or name in typed or base in typed, f"{name} in {expression}"
            used.add(name)
    assert len(used) > 20
    for expression in expressions():
        for name, selected in re.findall(r"([\w:]+)\{([^}]*)\}", expression):
            chosen = set(re.findall(r"(\w+)\s*(?:=~|!=|=)", selected)) - {"job"}
            assert chosen <= exported.get(name, chosen), f"{chosen} of {name} in {expression}"


def test_every_alert_says_what_to_do_and_is_tested() -> None:
    """In one sentence each, and `alerts_test.yml` has each of them firing and silent."""
    rules = [
        rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]
    ]
    tested = Path(__file__).with_name("alerts_test.yml").read_text()
    for rule in rules:
        assert set(rule["annotations"]) == {"summary", "next"}
        assert f"alertname: {rule['alert']}}}" in tested
        assert f'alertname="{rule["alert"]}"' in tested


def expressions() -> list[str]:
    """Every PromQL expression of the alerts and of the dashboard."""
    rules = [
        rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]
    ]
    dashboard: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    variables = [each["definition"] for each in dashboard["templating"]["list"] if "definition" in each]
    return [*(rule["expr"] for rule in rules), *panels, *variables]
