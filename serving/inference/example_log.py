"""Puts requests that carry ``tf.Example`` records, with their answers, into the request log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from serving.request_log.records import ExampleExchange
from serving.request_log.request_log import RequestLog
from serving.runtime.example_tasks import CLASSIFY, Classifications, Regressions
from serving.runtime.servable import Servable

_Answers = Sequence[tuple[str, Classifications | Regressions]]


def note_classify(
    request_log: RequestLog | None, servable: Servable, signature_name: str, source: Any, found: Classifications
) -> None:
    """Keep a classify, if it is one to keep."""

    def fill(log: Any) -> None:
        _fill_specs(log, servable, signature_name)
        _fill_classifications(log.response.result, found)

    _note(request_log, "classify_log", servable, signature_name, source, fill)


def note_regress(
    request_log: RequestLog | None, servable: Servable, signature_name: str, source: Any, found: Regressions
) -> None:
    """Keep a regress, if it is one to keep."""

    def fill(log: Any) -> None:
        _fill_specs(log, servable, signature_name)
        _fill_regressions(log.response.result, found)

    _note(request_log, "regress_log", servable, signature_name, source, fill)


def note_multi_inference(
    request_log: RequestLog | None, servable: Servable, tasks: Sequence[Any], source: Any, answers: _Answers
) -> None:
    """Keep a multi-inference, if it is one to keep."""

    def fill(log: Any) -> None:
        for task, (signature_name, found) in zip(tasks, answers, strict=True):
            log.request.tasks.add().CopyFrom(task)
            result = log.response.results.add()
            _fill_spec(result.model_spec, servable, signature_name)
            if task.method_name == CLASSIFY:
                _fill_classifications(result.classification_result, found)
            else:
                _fill_regressions(result.regression_result, found)

    _note(request_log, "multi_inference_log", servable, answers[0][0] if answers else "", source, fill)


def _note(
    request_log: RequestLog | None,
    kind: str,
    servable: Servable,
    signature_name: str,
    source: Any,
    fill: Callable[[Any], None],
) -> None:
    if request_log is not None and next(servable.usage.log_draws or request_log.draws(servable)):
        request_log.note(ExampleExchange(kind, servable, signature_name, source, fill))


def _fill_specs(log: Any, servable: Servable, signature_name: str) -> None:
    log.request.model_spec.name, log.request.model_spec.signature_name = servable.model, signature_name
    _fill_spec(log.response.model_spec, servable, signature_name)


def _fill_spec(spec: Any, servable: Servable, signature_name: str) -> None:
    spec.name, spec.version.value, spec.signature_name = servable.model, servable.version, signature_name


def _fill_classifications(result: Any, found: Any) -> None:
    for row in found:
        classes = result.classifications.add().classes
        for label, score in row:
            classes.add(label=label.decode("utf-8", "replace"), score=score)


def _fill_regressions(result: Any, found: Any) -> None:
    for value in found:
        result.regressions.add(value=value)
