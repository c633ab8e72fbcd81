"""Asks the model server for the predictions of rows that a person has written."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from clients.client import ModelMetadata, PredictClient, Prediction
from flows.endpoints.connections import assigned_label, grpc_client, rest_client
from flows.endpoints.ownership import check_is_ours
from flows.prediction.named_values import are_named, example, from_named, has_missing, schema_of
from flows.prediction.rows import Expected, check_readable, from_arguments, from_json, plain
from flows.promotion.labels import STABLE
from flows.settings import Settings
from serving.protocol.errors import InvalidRequest, ServableNotFound, ServingError
from serving.protocol.signature import DEFAULT_SIGNATURE, Signature
from serving.repository.store import Repository

STANDARD_INPUT = "-"
_CLASS_SIGNATURE = "classify_class"
_CLASS_OUTPUTS = {"class_name", "probability"}
_NO_EXAMPLE = "Could not parse example input"
"""how TensorFlow begins when a string is no serialized ``tf.Example``"""


@dataclass(frozen=True, slots=True)
class Query:
    """Which version and which signature of a model to ask, and over which protocol."""

    model: str
    version: int | None = None
    label: str | None = None
    signature: str = ""
    grpc: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The predictions of the version that answered."""

    model: str
    version: int | None
    outputs: dict[str, Any]
    """the values of each output, as JSON can carry them"""
    classes: list[dict[str, Any]]
    """the likeliest class of each row and its probability; empty for a model without classes"""
    missing: tuple[str, ...] = ()
    """names that were not given, and count as missing"""


def ask(settings: Settings, query: Query, rows: Sequence[str]) -> Answer:
    """
    Ask the server for `rows`, or for the JSON on standard input where they are ``-``.

    Raises:
        InvalidRequest: The rows do not fit the signature.
        ForeignServer: The model is published here, and the server is another repository's.
        ServingError: The server refuses, or does not answer.
    """
    if list(rows) != [STANDARD_INPUT]:
        check_readable(rows)
    with connected(settings, query) as (session, expected):
        missing: tuple[str, ...] = ()
        if list(rows) == [STANDARD_INPUT]:
            inputs = from_json(sys.stdin.read(), expected)
        elif are_named(rows, expected):
            inputs, missing = from_named(rows, expected)
        else:
            inputs = from_arguments(rows, expected)
        prediction, classes = session.ask(inputs)
    outputs = {name: plain(array) for name, array in prediction.outputs.items()}
    return Answer(query.model, prediction.version, outputs, classes, missing)


@contextmanager
def connected(settings: Settings, query: Query) -> Iterator[tuple[Session, Expected]]:
    """The server of the settings, for one query, and what the version that will answer takes."""
    _check_is_ours(settings, query.model)
    with grpc_client(settings) if query.grpc else rest_client(settings) as client:
        if query.version is None and query.label is None:
            query = replace(query, label=assigned_label(client, query.model, STABLE))
        metadata = client.metadata(query.model, version=query.version, label=query.label)
        _check_dense(query, metadata)
        yield Session(client, query, metadata), _expected(settings, query, metadata)


@dataclass(frozen=True, slots=True)
class Session:
    """A query to a server whose metadata is known."""

    client: PredictClient
    query: Query
    metadata: ModelMetadata

    def ask(self, inputs: dict[str, Any]) -> tuple[Prediction, list[dict[str, Any]]]:
        """The outputs for some rows, and their classes where the model has any."""
        query = self.query
        with _explained(query):
            prediction = self.client.predict(
                query.model, inputs, version=query.version, label=query.label, signature_name=query.signature
            )
        return prediction, _classes(self.client, query, self.metadata, inputs, prediction.version)

    def pinned(self) -> Session:
        """The same, for the version that answers now, so that later rows are not answered by another."""
        return replace(self, query=replace(self.query, version=self.metadata.version, label=None))


def _check_is_ours(settings: Settings, model: str) -> None:
    """Refuse a server of another repository for a model that is published here; any other model is asked anywhere."""
    repository = Repository(settings.models_repo)
    if not repository.versions(model):
        return
    # What else is wrong with the server, the request itself reports.
    with rest_client(settings) as rest, grpc_client(settings) as grpc, suppress(ServingError):
        check_is_ours(repository, settings.endpoints[0], rest, grpc)


def _check_dense(query: Query, metadata: ModelMetadata) -> None:
    """
    Raises:
        InvalidRequest: An input or output of the signature is no dense tensor.
    """
    signature = metadata.signature(query.signature)
    if not (names := _not_dense(signature)):
        return
    others = [f"`--signature {name}`" for name, each in sorted(metadata.signatures.items()) if not _not_dense(each)]
    way = f"ask with {' or '.join(others)}" if others else "no signature of it has dense tensors alone"
    raise InvalidRequest(
        f"{' and '.join(names)} of signature {query.signature or DEFAULT_SIGNATURE!r} of {query.model!r} is sparse or "
        f"ragged, and only dense tensors can be sent and received: {way}"
    )


def _not_dense(signature: Signature) -> list[str]:
    sides = (("Input", signature.inputs), ("Output", signature.outputs))
    return [f"{side} {name!r}" for side, infos in sides for name, info in infos.items() if not info.name]


@contextmanager
def _explained(query: Query) -> Iterator[None]:
    """Explain the error of a signature that takes records and got rows."""
    try:
        yield
    except InvalidRequest as exc:
        if not exc.message.startswith(_NO_EXAMPLE):
            raise
        raise InvalidRequest(
            f"Signature {query.signature or DEFAULT_SIGNATURE!r} of {query.model!r} takes serialized "
            f'tf.Example records: give [{{"b64": "…"}}] to `hotswap predict {query.model} -`, or ask another signature'
        ) from exc


def _expected(settings: Settings, query: Query, metadata: ModelMetadata) -> Expected:
    """What the signature takes; with the feature names and an example row if the version was published here."""
    repository, version = Repository(settings.models_repo), metadata.version
    stamp, schema = repository.stamp(query.model, version), schema_of(repository, query.model, version)
    columns = {column.name: column.input for column in schema.columns} if schema else {}
    inputs = metadata.signature(query.signature).inputs
    if not set(columns.values()) <= inputs.keys():  # another signature than that of the table
        columns = {}
    example_row = example(repository, query.model, version)
    takes_missing = bool(columns) or (stamp.golden is not None and has_missing(stamp.golden))
    return Expected(query.model, inputs, stamp.features, example_row, columns, takes_missing)


def _classes(
    client: PredictClient, query: Query, metadata: ModelMetadata, inputs: dict[str, Any], version: int | None
) -> list[dict[str, Any]]:
    """The classes of the same rows, by signature ``classify_class`` of the version that answered."""
    signature = metadata.signatures.get(_CLASS_SIGNATURE)
    if query.signature or signature is None or not signature.outputs.keys() >= _CLASS_OUTPUTS:
        return []
    if signature.inputs.keys() != inputs.keys():
        return []
    label = query.label if version is None else None
    with suppress(ServableNotFound):  # the version has just been removed
        outputs = client.predict(
            query.model, inputs, version=version, label=label, signature_name=_CLASS_SIGNATURE
        ).outputs
        pairs = zip(plain(outputs["class_name"]), plain(outputs["probability"]), strict=True)
        return [{"class": name, "probability": probability} for name, probability in pairs]
    return []
