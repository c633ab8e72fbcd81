"""What does the model server answer to rows that a person wrote?"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from clients.client import ModelMetadata, PredictClient
from flows.endpoints.connections import assigned_label, grpc_client, rest_client
from flows.endpoints.ownership import check_is_ours
from flows.prediction.rows import Expected, check_readable, from_arguments, from_json, plain, written
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
class Asked:
    """Which version and which signature of a model are asked, and how."""

    model: str
    version: int | None = None
    label: str | None = None
    signature: str = ""
    grpc: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the version that answered gave."""

    model: str
    version: int | None
    outputs: dict[str, Any]
    """per output its values, as JSON can carry them"""
    classes: list[dict[str, Any]]
    """per row the likeliest class and its probability, where the model can tell; else empty"""


def ask(settings: Settings, asked: Asked, rows: Sequence[str]) -> Answer:
    """
    Ask the server for `rows`, or for the JSON on standard input where they are ``-``.

    Raises:
        InvalidRequest: The rows do not fit the signature.
        ForeignServer: The model is published here, and the server is another repository's.
        ServingError: The server refuses, or does not answer.
    """
    if list(rows) != [STANDARD_INPUT]:
        check_readable(rows)
    _check_is_ours(settings, asked.model)
    with grpc_client(settings) if asked.grpc else rest_client(settings) as client:
        if asked.version is None and asked.label is None:
            asked = replace(asked, label=assigned_label(client, asked.model, STABLE))
        metadata = client.metadata(asked.model, version=asked.version, label=asked.label)
        _check_dense(asked, metadata)
        expected = _expected(settings, asked, metadata)
        if list(rows) == [STANDARD_INPUT]:
            inputs = from_json(sys.stdin.read(), expected)
        else:
            inputs = from_arguments(rows, expected)
        with _explained(asked):
            prediction = client.predict(
                asked.model, inputs, version=asked.version, label=asked.label, signature_name=asked.signature
            )
        classes = _classes(client, asked, metadata, inputs, prediction.version)
    outputs = {name: plain(array) for name, array in prediction.outputs.items()}
    return Answer(asked.model, prediction.version, outputs, classes)


def _check_is_ours(settings: Settings, model: str) -> None:
    """Do not take a model that is published here for one of the same name elsewhere; any other is asked anywhere."""
    repository = Repository(settings.models_repo)
    if not repository.versions(model):
        return
    with rest_client(settings) as rest, grpc_client(settings) as grpc, suppress(ServingError):  # asking says why
        check_is_ours(repository, settings.endpoints[0], rest, grpc)


def _check_dense(asked: Asked, metadata: ModelMetadata) -> None:
    """
    Raises:
        InvalidRequest: An input or output of the signature is no dense tensor.
    """
    signature = metadata.signature(asked.signature)
    if not (names := _not_dense(signature)):
        return
    others = [f"`--signature {name}`" for name, each in sorted(metadata.signatures.items()) if not _not_dense(each)]
    way = f"ask with {' or '.join(others)}" if others else "no signature of it has dense tensors alone"
    raise InvalidRequest(
        f"{' and '.join(names)} of signature {asked.signature or DEFAULT_SIGNATURE!r} of {asked.model!r} is sparse or "
        f"ragged, and only dense tensors can be sent and received: {way}"
    )


def _not_dense(signature: Signature) -> list[str]:
    sides = (("Input", signature.inputs), ("Output", signature.outputs))
    return [f"{side} {name!r}" for side, infos in sides for name, info in infos.items() if not info.name]


@contextmanager
def _explained(asked: Asked) -> Iterator[None]:
    """Where rows went to a signature that takes records, say so."""
    try:
        yield
    except InvalidRequest as exc:
        if not exc.message.startswith(_NO_EXAMPLE):
            raise
        raise InvalidRequest(
            f"Signature {asked.signature or DEFAULT_SIGNATURE!r} of {asked.model!r} takes serialized "
            f'tf.Example records: give [{{"b64": "…"}}] to `hotswap predict {asked.model} -`, or ask another signature'
        ) from exc


def _expected(settings: Settings, asked: Asked, metadata: ModelMetadata) -> Expected:
    """What the signature takes; names and an example from what was published here, where the version was."""
    stamp = Repository(settings.models_repo).stamp(asked.model, metadata.version)
    inputs = metadata.signature(asked.signature).inputs
    return Expected(asked.model, inputs, stamp.features, written(stamp.golden))


def _classes(
    client: PredictClient, asked: Asked, metadata: ModelMetadata, inputs: dict[str, Any], version: int | None
) -> list[dict[str, Any]]:
    """What signature ``classify_class`` of the version that answered says of the same rows."""
    signature = metadata.signatures.get(_CLASS_SIGNATURE)
    if asked.signature or signature is None or not signature.outputs.keys() >= _CLASS_OUTPUTS:
        return []
    if signature.inputs.keys() != inputs.keys():
        return []
    label = asked.label if version is None else None
    with suppress(ServableNotFound):  # the version has just been removed
        outputs = client.predict(
            asked.model, inputs, version=version, label=label, signature_name=_CLASS_SIGNATURE
        ).outputs
        pairs = zip(plain(outputs["class_name"]), plain(outputs["probability"]), strict=True)
        return [{"class": name, "probability": probability} for name, probability in pairs]
    return []
