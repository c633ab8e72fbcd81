"""serving/kubernetes is rendered by kubectl, known to the schemas of Kubernetes, closed, and fits together."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prefect.utilities.templating import apply_values

from flows.settings import Settings

KUBERNETES = Path(__file__).parents[2] / "serving" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
VERSION = "1.32"

pytestmark = pytest.mark.needs("kubectl")


@cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    """Every object of an overlay."""
    command = ["kubectl", "kustomize", str(KUBERNETES / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(overlay: str, kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in rendered(overlay) if each["kind"] == kind}


def pods(overlay: str) -> dict[str, dict[str, Any]]:
    """The pod of every deployment, by its name."""
    return {name: each["spec"]["template"]["spec"] for name, each in of_kind(overlay, "Deployment").items()}


def job() -> dict[str, Any]:
    """The job of a training, as Prefect's worker fills it in."""
    template = json.loads((KUBERNETES / "job-template.json").read_text("utf-8"))
    defaults = {
        name: each["default"] for name, each in template["variables"]["properties"].items() if "default" in each
    }
    values = {**defaults, "name": "training", "command": ["prefect", "flow-run", "execute"], "env": [], "labels": {}}
    filled: dict[str, Any] = apply_values(template["job_configuration"]["job_manifest"], values)
    return filled


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_object_is_one_of_kubernetes(overlay: str) -> None:
    """Strictly: a field that Kubernetes does not know is an error."""
    for each in rendered(overlay):
        kubernetes_validate.validate(each, VERSION, strict=True)
        assert each["metadata"]["namespace"] == "hotswap"


def test_the_job_of_a_training_is_one_of_kubernetes() -> None:
    """Every placeholder of the work pool's template is filled; its volume and settings are those of the base."""
    found = job()
    kubernetes_validate.validate(found, VERSION, strict=True)
    assert "{{" not in json.dumps(found)
    pod = found["spec"]["template"]["spec"]
    assert pod["containers"][0]["envFrom"] == [{"configMapRef": {"name": "hotswap"}}]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] in of_kind(
        "tensorflow-serving", "PersistentVolumeClaim"
    )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_is_closed_and_watched(overlay: str) -> None:
    """None runs as root, writes into its image, gains rights or is without limits; what stays has a liveness probe."""
    found = {**pods(overlay), "training": job()["spec"]["template"]["spec"]}
    for pod in found.values():
        assert pod["securityContext"]["runAsNonRoot"]
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            context = container["securityContext"]
            assert (context["readOnlyRootFilesystem"], context["allowPrivilegeEscalation"]) == (True, False)
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]
            assert ":" in container["image"]
    assert all("livenessProbe" in container for pod in pods(overlay).values() for container in pod["containers"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_named_is_there(overlay: str) -> None:
    """Secrets, settings, volumes and ports; services, budget and autoscaler choose the pods that there are."""
    secret = yaml.safe_load((KUBERNETES / "secret.example.yaml").read_text("utf-8"))["stringData"]
    maps = of_kind(overlay, "ConfigMap")
    for pod in pods(overlay).values():
        volumes = {each["name"] for each in pod["volumes"]}
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert {each["name"] for each in container["volumeMounts"]} <= volumes
            for variable in container.get("env", []):
                key = variable.get("valueFrom", {}).get("secretKeyRef", {}).get("key")
                assert key is None or key in secret
            assert all(each["configMapRef"]["name"] in maps for each in container.get("envFrom", []))
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in of_kind(overlay, "Deployment").values()]
    chosen = [each["spec"]["selector"] for each in of_kind(overlay, "Service").values()]
    chosen += [each["spec"]["selector"]["matchLabels"] for each in of_kind(overlay, "PodDisruptionBudget").values()]
    assert all(any(selector.items() <= each.items() for each in labels) for selector in chosen)
    (scaled,) = of_kind(overlay, "HorizontalPodAutoscaler").values()
    assert scaled["spec"]["scaleTargetRef"]["name"] in of_kind(overlay, "Deployment")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings_are_settings(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable that begins with HOTSWAP_ is one, with a value that it takes; one name is all replicas."""
    data = of_kind(overlay, "ConfigMap")["hotswap"]["data"]
    given = {name.removeprefix("HOTSWAP_").lower() for name in data if name.startswith("HOTSWAP_")}
    assert given <= Settings.model_fields.keys()
    for name, value in data.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.endpoints[0].grpc_target == "serving-hosts:8500"
    assert settings.fleet is (overlay != "shared-volume")
    assert of_kind(overlay, "Service")["serving-hosts"]["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nobody_reaches_anybody_unless_a_policy_says_so(overlay: str) -> None:
    """All is denied first; serving takes clients, the page of MLflow does not."""
    policies = {name: each["spec"] for name, each in of_kind(overlay, "NetworkPolicy").items()}
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert "namespaceSelector" in policies["serving"]["ingress"][0]["from"][0]
    assert all("namespaceSelector" not in each for rule in policies["mlflow"]["ingress"] for each in rule["from"])


def test_the_volume_of_a_replica_is_filled_before_its_server_starts() -> None:
    """An init container fetches what is live, and the side-car follows from then on; shared, there are neither."""
    for overlay in ("tensorflow-serving", "hotswap-server"):
        pod = pods(overlay)["serving"]
        assert [each["command"] for each in pod["initContainers"]] == [["hotswap", "agent", "--once"]]
        assert pod["containers"][1]["command"][:2] == ["hotswap", "agent"]
        assert {each["name"]: each for each in pod["volumes"]}["models"].keys() == {"emptyDir", "name"}
    shared = pods("shared-volume")["serving"]
    assert not shared.get("initContainers")
    assert [each["name"] for each in shared["containers"]] == ["serving"]
    (models,) = [each for each in shared["volumes"] if each["name"] == "models"]
    assert models["persistentVolumeClaim"] == {"claimName": "hotswap", "readOnly": True}
