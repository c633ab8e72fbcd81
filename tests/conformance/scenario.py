"""
What happens while models and configurations come, change and go?

A scenario is a list of steps. Each does something, or sees something, which has to be what was seen at the real server.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import text_format
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2, predict_pb2

from tests.conformance.cases import content
from tests.conformance.client import RestAnswer
from tests.conformance.compare import in_legal_order, response_value, step_difference
from tests.conformance.launch import (
    ENVIRONMENT,
    START_SECONDS,
    Client,
    InItsOwnProcess,
    InThisProcess,
    Launched,
    Scratch,
    arguments_for,
    listens,
    reserved_ports,
    serve,
    wait_until,
)
from tests.processes import forked

ANSWER_SECONDS = 20.0
PATIENCE = 3.0
_TRAFFIC_SECONDS = 0.01
_STATES_SECONDS = 0.003
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}
_State = get_model_status_pb2.ModelVersionStatus.State

Step = Mapping[str, Any]


class Watcher:
    """Looks at something now and again and again, in a thread of its own, and keeps what is new."""

    def __init__(self, look: Callable[[], Any], seconds: float) -> None:
        self._look = look
        self._seconds = seconds
        self._seen: list[Any] = [look()]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> list[Any]:
        """All that was seen, what is there now included."""
        self._stop.set()
        self._thread.join()
        return self._seen

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self._note()
        self._note()

    def _note(self) -> None:
        now = self._look()
        if self._seen[-1] != now:
            self._seen.append(now)


class Scenario:
    """Goes through the steps of one scenario, with a server and a directory of its own."""

    def __init__(self, steps: list[Step], root: Path) -> None:
        self._steps = steps
        self._scratch = Scratch(root)
        self._stack = ExitStack()
        self._ports: list[int] = []
        self._server: Launched | None = None
        self._client: Client | None = None
        self._watchers: dict[str, Watcher] = {}

    def first_difference(self, strict: bool = False) -> str:
        """The first step after which something else is seen than was recorded, and what; nothing if there is none."""
        with self._stack:
            for number, step in enumerate(self._steps):
                seen = getattr(self, f"_{step['op']}")(step)
                found = step_difference(step, seen, strict) if "expect" in step else ""
                if found:
                    return f"step {number}, {step['op']}: {found}"
            return ""

    def _start(self, step: Step) -> str:
        self._ports = self._stack.enter_context(reserved_ports(2))
        arguments = arguments_for(self._scratch, step["config"], step["flags"], self._ports)
        self._server = server = self._launched(arguments)
        self._stack.callback(server.close)
        mode = step.get("mode", "ready")
        if mode == "nowait":
            return "started"
        if isinstance(server, InItsOwnProcess) and mode == "exit":
            return "exit non-zero" if server.wait_exit() else "exit 0"
        return self._ready(step)

    def _launched(self, arguments: list[str]) -> Launched:
        """Exit codes and what is printed are those of a process."""
        if any(step["op"] == "log" or step.get("mode") == "exit" for step in self._steps):
            return InItsOwnProcess(arguments, self._scratch.root / "log")
        return InThisProcess(arguments)

    def _ready(self, step: Step) -> str:
        assert self._server is not None
        self._server.wait_ready()
        self._client = Client(self._scratch, *self._ports)
        self._stack.callback(self._client.close)
        return "ready"

    def _closed(self, step: Step) -> str:
        opened = wait_until(lambda: any(map(listens, self._ports)), step["seconds"])
        return "open" if opened else "closed"

    def _log(self, step: Step) -> dict[str, Any]:
        assert isinstance(self._server, InItsOwnProcess)
        return {"missing": _missing(step["contains"], self._server.output())}

    def _cli(self, step: Step) -> dict[str, Any]:
        ended = forked(ENVIRONMENT, serve, step["args"])
        return {"exit": ended.returncode, "missing": _missing(step["contains"], ended.stdout + ended.stderr)}

    def _sleep(self, step: Step) -> None:
        time.sleep(step["seconds"])

    def _mkdir(self, step: Step) -> None:
        self._scratch.path(step["path"]).mkdir(parents=True)

    def _copy(self, step: Step) -> None:
        if "only" not in step:
            self._scratch.copy(step["src"], step["dst"])
        for name in step.get("only", ()):
            self._scratch.copy_file(f"{step['src']}/{name}", f"{step['dst']}/{name}")

    def _rename(self, step: Step) -> None:
        self._scratch.path(step["src"]).rename(self._scratch.path(step["dst"]))

    def _remove(self, step: Step) -> None:
        self._scratch.remove(step["path"])

    def _write(self, step: Step) -> None:
        self._scratch.write(step["path"], step["text"])

    def _config(self, step: Step) -> None:
        self._scratch.write("models.config", step["text"])

    def _reload(self, step: Step) -> str:
        request = model_management_pb2.ReloadConfigRequest()
        text_format.Parse(self._scratch.fill(step["config"]), request.config)
        seconds = step.get("timeout", ANSWER_SECONDS)
        code, message, _ = self._ask("ModelService/HandleReloadConfigRequest", request, seconds)
        return code if code == "OK" else f"{code}: {message}"

    def _states(self, step: Step) -> list[Any]:
        request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": step["model"]})
        code, message, content = self._ask("ModelService/GetModelStatus", request)
        if code != "OK":
            return [code, message]
        response = get_model_status_pb2.GetModelStatusResponse.FromString(content)
        rows = [
            [each.version, _State.Name(each.state), _CODES[each.status.error_code], each.status.error_message]
            for each in response.model_version_status
        ]
        return [code, rows]

    def _state(self, step: Step, version: int) -> str | None:
        code, rows = self._states(step)
        return next((row[1] for row in rows if row[0] == version), None) if code == "OK" else None

    def _wait_states(self, step: Step) -> dict[str, str | None]:
        def look() -> dict[str, str | None]:
            return {version: self._state(step, int(version)) for version in step["want"]}

        wait_until(lambda: look() == step["want"], step["deadline"] * PATIENCE)
        return look()

    def _served(self, step: Step) -> str:
        """Which version answers, or what is answered instead."""
        request = predict_pb2.PredictRequest(model_spec={"name": step["model"]})
        if "version" in step:
            request.model_spec.version.value = step["version"]
        if "label" in step:
            request.model_spec.version_label = step["label"]
        tensor = request.inputs["input"]
        tensor.dtype = 1
        for size in (1, 4):
            tensor.tensor_shape.dim.add(size=size)
        tensor.float_val.extend([1.0, 2.0, 3.0, 4.0])
        code, message, content = self._ask("PredictionService/Predict", request)
        if code != "OK":
            return f"{code}: {message}"
        return f"v{predict_pb2.PredictResponse.FromString(content).model_spec.version.value}"

    def _wait_served(self, step: Step) -> str:
        wait_until(lambda: self._served(step) == step["want"], step["deadline"] * PATIENCE)
        return self._served(step)

    def _rest(self, step: Step) -> RestAnswer:
        assert self._client is not None
        return self._client.rest(step["request"], ANSWER_SECONDS)

    def _many(self, step: Step) -> list[list[Any]]:
        """The different answers to each request while several clients ask at once, again and again."""
        requests, clients = step["requests"], step["clients"]
        gate = threading.Barrier(clients)

        def ask(number: int) -> list[Any]:
            gate.wait(START_SECONDS)
            return [self._answered(requests[number % len(requests)]) for _ in range(step["times"])]

        for request in requests:
            self._answered(request)
        seen: list[list[Any]] = [[] for _ in requests]
        with ThreadPoolExecutor(clients) as pool:
            for number, answers in enumerate(pool.map(ask, range(clients))):
                distinct = seen[number % len(requests)]
                for answer in answers:
                    if answer not in distinct:
                        distinct.append(answer)
        return seen

    def _answered(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """An answer as it is recorded where many clients ask."""
        assert self._client is not None
        if request["protocol"] == "REST":
            page = self._client.rest(request, ANSWER_SECONDS)
            return {"status": page.status, "body": page.body.decode()}
        answer = self._client.grpc(request["method"], content(request, "message"), ANSWER_SECONDS)
        return {"code": answer.code, "message": answer.message, "value": response_value(request["method"], answer)}

    def _metrics(self, step: Step) -> dict[str, Any]:
        page = self._rest({"request": {"method": "GET", "path": step["path"]}})
        lines = page.body.decode().splitlines()
        return {
            "status": page.status,
            "content-type": page.headers["content-type"],
            "missing_types": _missing([f"# TYPE {each}" for each in step["types"]], lines),
            "missing_samples": [each for each in step["samples"] if not any(line.startswith(each) for line in lines)],
        }

    def _watch(self, step: Step) -> None:
        if step["kind"] == "traffic":
            watcher = Watcher(lambda: self._served(step), _TRAFFIC_SECONDS)
        else:
            watcher = Watcher(lambda: self._state(step, step["version"]), _STATES_SECONDS)
        self._stack.callback(watcher.close)
        self._watchers[step["name"]] = watcher

    def _unwatch(self, step: Step) -> Any:
        seen = self._watchers[step["name"]].close()
        if isinstance(step["expect"], list):
            return seen
        states = [state for state in seen if state is not None]
        return {"legal_order": in_legal_order(states), "last": states[-1] if states else None}

    def _ask(self, method: str, request: Any, seconds: float = ANSWER_SECONDS) -> tuple[str, str, bytes]:
        assert self._client is not None
        answer = self._client.grpc(f"tensorflow.serving.{method}", request.SerializeToString(), seconds)
        return answer.code, answer.message, answer.response


def _missing(wanted: list[str], text: str | list[str]) -> list[str]:
    return [each for each in wanted if each not in text]
