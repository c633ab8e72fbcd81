"""Reads what clients have asked a model, and were answered, from a request log: ours or TensorFlow Serving's."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.data.rows import Inputs, count
from flows.drift.examples import answers_of, inputs_of
from flows.drift.profile import Profile
from serving.protocol.errors import HotswapError
from serving.protocol.tensors import decode
from serving.request_log.files import whole_records

log = logging.getLogger(__name__)

_PREDICT, _MULTI_INFERENCE = "predict_log", "multi_inference_log"
_KINDS = (_PREDICT, "classify_log", "regress_log", _MULTI_INFERENCE)
MAX_ROWS = 200_000
"""so many of the newest rows are compared"""


class NoLog(HotswapError):
    """There is no request log."""


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """One predict, classify, regress or multi-inference."""

    version: int | None
    """that answered, where the log says it"""
    time: float | None
    """seconds since 1970, where the log says it"""
    inputs: Inputs
    """[rows, …] by input; strings are bytes"""
    outputs: Inputs
    """[rows, …] by output: with a profile, only the one that it is of"""


@dataclass(frozen=True, slots=True, eq=False)
class Logged:
    """Rows that were asked, the oldest first."""

    inputs: Inputs
    """[rows, …] by input"""
    outputs: Inputs
    """[answered rows, …] by output, of one version"""
    answered: NDArray[np.bool_]
    """[rows]: which of the rows that version answered"""

    def __len__(self) -> int:
        return len(self.answered)


def logged_rows(
    directory: Path,
    model: str,
    inputs: Sequence[str],
    version: int | None = None,
    since: datetime | None = None,
    max_rows: int = MAX_ROWS,
    profile: Profile | None = None,
) -> Logged:
    """
    The newest rows that a model was asked for.

    Args:
        directory: Of the log.
        model: Its name.
        inputs: The names of its inputs; of each, what was left out of the log is not there.
        version: Whose answers are wanted; None: of nobody.
        since: Older ones are left out.
        max_rows: As soon as there are so many, it is enough.
        profile: Says which output is wanted; without it, the answers of predicts alone are read.

    Raises:
        NoLog: There are no files there.
    """
    kept: list[Exchange] = []
    rows = 0
    for exchange in _newest(directory, model, inputs, since, profile):
        if kept and not _is_alike(exchange, kept[0]):
            continue  # of another signature, or logged while other columns were left out
        kept.append(exchange)
        rows += count(exchange.inputs)
        if rows >= max_rows:
            log.info("the newest rows of the request log are taken rows=%d", rows)
            break
    return _together(kept[::-1], version)


def exchanges(path: Path, names: Sequence[str], profile: Profile | None) -> Iterator[tuple[str, Exchange]]:
    """
    What one file has, each with the name of the model; of ``tf.Example`` records the features of these `names`.

    Args:
        path: Of the file.
        names: Of the inputs.
        profile: As of `logged_rows`.
    """
    from tensorflow_serving.apis import prediction_log_pb2

    for content in whole_records(path):
        record = prediction_log_pb2.PredictionLog.FromString(content)
        if (kind := record.WhichOneof("log_type")) not in _KINDS:
            continue
        logged = getattr(record, kind)
        request, response = logged.request, logged.response
        spec = record.log_metadata.model_spec if record.HasField("log_metadata") else _model_spec(response)
        try:
            inputs = _decoded(request.inputs) if kind == _PREDICT else inputs_of(request.input, names)
            outputs = _answers(kind, response, profile)
        except ValueError:
            continue  # a tensor that no array can hold, or examples that are no rows
        version = spec.version.value if spec.HasField("version") else None
        seconds = float(record.log_metadata.timestamp_secs) or None
        yield spec.name or _model_spec(request).name, Exchange(version, seconds, inputs, outputs)


def _model_spec(message: Any) -> Any:
    """That of a request or an answer; of a multi-inference that of its first task or result."""
    from tensorflow_serving.apis import model_pb2

    first = next(iter([*getattr(message, "tasks", ()), *getattr(message, "results", ())]), message)
    return getattr(first, "model_spec", model_pb2.ModelSpec())


def _answers(kind: str, response: Any, profile: Profile | None) -> Inputs:
    if kind == _PREDICT:
        return _decoded(response.outputs if profile is None else _only(response.outputs, profile.output))
    if profile is None:
        return {}
    found = answers_of(_results(kind, response), profile.class_names)
    return {} if found is None else {profile.output: found}


def _results(kind: str, response: Any) -> list[Any]:
    """Those that are there: of a multi-inference one for each task."""
    if kind != _MULTI_INFERENCE:
        return [response.result]
    return [getattr(each, name) for each in response.results if (name := each.WhichOneof("result"))]


def _only(tensors: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return {name: tensors[name]} if name in tensors else {}


def _decoded(tensors: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    return {name: decode(tensor) for name, tensor in tensors.items()}


def _newest(
    directory: Path, model: str, inputs: Sequence[str], since: datetime | None, profile: Profile | None
) -> Iterator[Exchange]:
    """Those of a model from the newest to the oldest."""
    start = None if since is None else since.timestamp()
    for path in _files(directory, start):
        found = [each for name, each in exchanges(path, inputs, profile) if name == model]
        for exchange in reversed(found):
            is_new = start is None or exchange.time is None or exchange.time >= start
            if is_new and exchange.inputs and exchange.inputs.keys() <= set(inputs) and _rows(exchange) is not None:
                yield exchange


def _files(directory: Path, start: float | None) -> Sequence[Path]:
    """All files of a log that were written to since then, the newest first, whoever wrote them."""
    found = [path for path in directory.glob("*") if path.is_file()] if directory.is_dir() else []
    if not found:
        raise NoLog(
            f"There is no request log in {directory}: set HOTSWAP_REQUEST_LOG=0.1 and start `hotswap up` again, or "
            "name another directory by --log"
        )
    times = {path: path.stat().st_mtime for path in found}
    return sorted((path for path in found if start is None or times[path] >= start), key=times.__getitem__)[::-1]


def _rows(exchange: Exchange) -> int | None:
    """How many rows it asks for; None where its inputs do not have as many as each other, or its answers as many."""
    arrays = [*exchange.inputs.values(), *exchange.outputs.values()]
    sizes = {array.shape[:1] for array in arrays}
    return sizes.pop()[0] if len(sizes) == 1 and () not in sizes else None


def _is_alike(one: Exchange, other: Exchange) -> bool:
    """Whether their inputs can be put together."""
    return _form(one.inputs) == _form(other.inputs)


def _form(arrays: Inputs) -> Mapping[str, Any]:
    """What can be put together has the same: numbers of any type, one value a row as a vector or as a column."""
    return {name: (array.dtype == object, array.shape[1:] or (1,)) for name, array in arrays.items()}


def _together(kept: Sequence[Exchange], version: int | None) -> Logged:
    answered_by = [each for each in kept if version is not None and each.outputs and each.version in (version, None)]
    forms = [_form(each.outputs) for each in answered_by]
    answering = {id(each) for each, form in zip(answered_by, forms, strict=True) if form == forms[-1]}
    rows = [count(each.inputs) for each in kept]
    answered = np.repeat([id(each) in answering for each in kept], rows) if kept else np.zeros(0, bool)
    return Logged(
        _concatenated(each.inputs for each in kept),
        _concatenated(each.outputs for each in kept if id(each) in answering),
        answered.astype(bool),
    )


def _concatenated(parts: Iterable[Inputs]) -> dict[str, NDArray[Any]]:
    listed = list(parts)
    first = listed[0] if listed else {}
    return {
        name: np.concatenate([part[name].reshape(-1, *array.shape[1:]) for part in listed])
        for name, array in first.items()
    }
