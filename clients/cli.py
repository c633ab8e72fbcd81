"""Prints the status, the signatures and sample answers of a model, over either protocol."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

from clients.client import Credentials, ModelMetadata, PredictClient, Prediction
from serving.protocol.errors import HotswapError, InvalidRequest
from serving.protocol.signature import TensorInfo
from serving.protocol.version_status import VersionStatus

SAMPLE_ROWS = [[5.1, 3.5, 1.4, 0.2], [5.9, 3.0, 4.2, 1.5], [6.9, 3.1, 5.4, 2.1]]
CLASS_SIGNATURE = "classify_class"

Connect = Callable[[str, int, Credentials], PredictClient]


def main(connect: Connect, default_port: int) -> None:
    """Print status, signatures and sample predictions of the model that the command line names."""
    arguments = _parser(default_port).parse_args()
    try:
        with connect(arguments.host, arguments.port, _credentials(arguments)) as client:
            _print_status(client.status(arguments.model))
            metadata = client.metadata(arguments.model, version=arguments.version, label=arguments.label)
            _print_signatures(metadata)
            ask = partial(client.predict, metadata.model, SAMPLE_ROWS, version=arguments.version, label=arguments.label)
            _print_probabilities(ask)
            if CLASS_SIGNATURE in metadata.signatures:
                _print_classes(ask(signature_name=CLASS_SIGNATURE))
    except HotswapError as exc:
        sys.exit(str(exc))


def _parser(default_port: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Ask a model server for a model's status, signatures and answers.")
    parser.add_argument("--host", default="127.0.0.1", help="address of the server (%(default)s)")
    parser.add_argument("--port", type=int, default=default_port, help="port of the server (%(default)s)")
    parser.add_argument("--model", default="iris", help="name of the model (%(default)s)")
    parser.add_argument("--token-file", help="file with the bearer token that the server requires")
    parser.add_argument(
        "--ca-file", help="certificate (PEM) of the authority that signed the server's; encrypts the connection"
    )
    parser.add_argument("--certificate-file", help="this client's certificate (PEM), where the server requires one")
    parser.add_argument("--key-file", help="its key (PEM)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--version", type=int, help="number of the version to ask (default: the server chooses)")
    which.add_argument("--label", help="label of the version to ask, such as stable")
    return parser


def _credentials(arguments: argparse.Namespace) -> Credentials:
    token = ""
    if arguments.token_file:
        try:
            token = Path(arguments.token_file).read_text("utf-8").strip()
        except OSError as exc:
            raise InvalidRequest(f"The token in {arguments.token_file} cannot be read: {exc.strerror}") from exc
    return Credentials(token, arguments.ca_file, arguments.certificate_file, arguments.key_file)


def _print_status(statuses: Iterable[VersionStatus]) -> None:
    print("Status")
    for each in statuses:
        print(f"  version {each.version} {each.state.name} {each.message}".rstrip())


def _print_signatures(metadata: ModelMetadata) -> None:
    print(f"Signatures of {metadata.model} version {metadata.version}")
    for name, signature in sorted(metadata.signatures.items()):
        print(f"  {name}: {_describe(signature.inputs)} -> {_describe(signature.outputs)}")


def _describe(infos: Mapping[str, TensorInfo]) -> str:
    return ", ".join(f"{name} {_describe_tensor(info)}" for name, info in sorted(infos.items()))


def _describe_tensor(info: TensorInfo) -> str:
    if not info.name:
        return "sparse or composite"
    kind = "string" if info.dtype == object else "unknown type" if info.dtype is None else str(info.dtype)
    return kind if info.shape is None else f"{kind} {list(info.shape)}"


def _print_probabilities(ask: Callable[[], Prediction]) -> None:
    started = time.perf_counter()
    prediction = ask()
    milliseconds = (time.perf_counter() - started) * 1000
    version = "unknown" if prediction.version is None else prediction.version
    print(f"Answer of version {version} in {milliseconds:.1f} ms")
    for name, array in prediction.outputs.items():
        for row, answer in zip(SAMPLE_ROWS, array, strict=True):
            print(f"  {row} -> {name} {answer.round(4)}")


def _print_classes(prediction: Prediction) -> None:
    print(f"Classes by {CLASS_SIGNATURE}")
    outputs = prediction.outputs
    columns = zip(SAMPLE_ROWS, outputs["class_id"], outputs["class_name"], outputs["probability"], strict=True)
    for row, class_id, class_name, probability in columns:
        print(f"  {row} -> {class_id} {class_name.decode()} {probability:.4f}")
