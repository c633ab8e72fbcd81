"""Encrypted, over a Unix socket, with a token: who may ask, and who may not."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc_health.v1 import health_pb2, health_pb2_grpc

from clients import Credentials, GrpcClient, RestClient
from clients.client import PredictClient
from serving.protocol.errors import Forbidden, InvalidRequest, ServerUnavailable, Unauthenticated
from serving.repository.model_config import ModelEntry
from serving.startup import StartupError

TOKEN = "s3cret"
ROWS = [[1.0, 2.0, 3.0, 4.0]]


@dataclass(frozen=True)
class Identity:
    """A certificate and its key as PEM, in files too."""

    certificate: Path
    key: Path
    name: x509.Name
    private: ec.EllipticCurvePrivateKey

    def pem(self, file: str) -> str:
        """The text of ``certificate`` or ``key``, as it stands in a text proto."""
        return str(getattr(self, file).read_text()).replace("\n", "\\n")


def identity(directory: Path, name: str, signer: Identity | None = None) -> Identity:
    """Somebody at 127.0.0.1, certified by `signer` or by themselves."""
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.name if signer else subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .sign(signer.private if signer else private, hashes.SHA256())
    )
    files = directory / f"{name}.pem", directory / f"{name}.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return Identity(*files, subject, private)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """Who signs."""
    return identity(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory, authority: Identity) -> Identity:
    """Whose server it is."""
    return identity(tmp_path_factory.mktemp("server"), "server", authority)


@pytest.fixture
def base_path(tmp_path: Path, tiny_model: Any) -> str:
    """One version of one model."""
    tiny_model(tmp_path / "tiny", 1)
    return str(tmp_path / "tiny")


def ssl_config(directory: Path, owner: Identity, authority: Identity | None = None) -> Path:
    """An ``SSLConfig``; with an authority that clients must be certified by."""
    path = directory / "ssl.config"
    text = f'server_key: "{owner.pem("key")}"\nserver_cert: "{owner.pem("certificate")}"\n'
    if authority is not None:
        text += f'custom_ca: "{authority.pem("certificate")}"\nclient_verify: true\n'
    path.write_text(text)
    return path


def test_grpc_over_tls(model_server: Any, tmp_path: Path, base_path: str, owner: Identity, authority: Identity) -> None:
    """A client that knows who signed is answered; one that does not encrypt is not."""
    server = model_server(model_base_path=base_path, ssl_config_file=ssl_config(tmp_path, owner))
    target = f"127.0.0.1:{server.grpc_port}"
    with GrpcClient(target, credentials=Credentials(ca_file=str(authority.certificate))) as client:
        assert client.predict("default", ROWS).version == 1
    with GrpcClient(target, timeout_seconds=2) as client, pytest.raises(ServerUnavailable):
        client.status("default")


def test_grpc_wants_client_certificates(
    model_server: Any, tmp_path: Path, base_path: str, owner: Identity, authority: Identity
) -> None:
    """With ``client_verify`` only clients whom the authority has certified are answered."""
    server = model_server(model_base_path=base_path, ssl_config_file=ssl_config(tmp_path, owner, authority))
    target = f"127.0.0.1:{server.grpc_port}"
    known, stranger = identity(tmp_path, "known", authority), identity(tmp_path, "stranger")
    ca_file = str(authority.certificate)
    with GrpcClient(target, credentials=Credentials("", ca_file, str(known.certificate), str(known.key))) as client:
        assert client.predict("default", ROWS).version == 1
    for credentials in (
        Credentials("", ca_file),
        Credentials("", ca_file, str(stranger.certificate), str(stranger.key)),
    ):
        with GrpcClient(target, timeout_seconds=2, credentials=credentials) as client, pytest.raises(ServerUnavailable):
            client.status("default")


@pytest.mark.parametrize("has_port", [True, False])
def test_grpc_over_a_unix_socket(model_server: Any, tmp_path: Path, base_path: str, has_port: bool) -> None:
    """The socket answers, beside the port or instead of it."""
    path = tmp_path / "grpc.sock"
    server = model_server(
        model_base_path=base_path, grpc_socket_path=str(path), grpc_port=0 if has_port else None, rest_port=None
    )
    with GrpcClient(f"unix:{path}") as client:
        assert client.predict("default", ROWS).version == 1
    if has_port:
        with GrpcClient(f"127.0.0.1:{server.grpc_port}") as client:
            assert client.predict("default", ROWS).version == 1


def test_rest_over_tls(model_server: Any, base_path: str, owner: Identity, authority: Identity) -> None:
    """A client that knows who signed is answered; one that does not gets an error."""
    server = model_server(
        model_base_path=base_path, rest_ssl_certificate_file=owner.certificate, rest_ssl_key_file=owner.key
    )
    url = f"https://127.0.0.1:{server.rest_port}"
    with RestClient(url, credentials=Credentials(ca_file=str(authority.certificate))) as client:
        assert client.predict("default", ROWS).version == 1
    with RestClient(url) as client, pytest.raises(InvalidRequest, match=r"TLS with .* failed"):
        client.status("default")


@pytest.mark.parametrize("native_grpc", [True, False])
def test_a_token_is_wanted_over_both_protocols(
    model_server: Any, tmp_path: Path, base_path: str, native_grpc: bool
) -> None:
    """Who has it is answered; who has none or another one learns so, with the status of the protocol."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    server = model_server(model_base_path=base_path, token_file=tmp_path / "token", native_grpc=native_grpc)
    url, target = f"http://127.0.0.1:{server.rest_port}", f"127.0.0.1:{server.grpc_port}"
    for client in (RestClient(url, credentials=Credentials(TOKEN)), GrpcClient(target, credentials=Credentials(TOKEN))):
        with client:
            assert client.predict("default", ROWS).version == 1
    for credentials in (Credentials(), Credentials("another")):
        for client in (RestClient(url, credentials=credentials), GrpcClient(target, credentials=credentials)):
            with client, pytest.raises(Unauthenticated, match="token"):
                client.predict("default", ROWS)
    refused = requests.get(f"{url}/v1/models/default", timeout=5)
    assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
    for path in ("/hotswap/models", "/v1/models/none:predict", "/healthz/"):
        assert requests.get(url + path, timeout=5).status_code == 401


@pytest.fixture
def token_files(tmp_path: Path) -> dict[str, Path]:
    """One for predictions, and one for administrators."""
    files = {"token_file": tmp_path / "predict", "admin_token_file": tmp_path / "admin"}
    files["token_file"].write_text(f"{TOKEN}\n")
    files["admin_token_file"].write_text("t00r\n")
    return files


@pytest.mark.parametrize("native_grpc", [True, False])
def test_who_predicts_may_not_change_the_server(
    model_server: Any, base_path: str, token_files: dict[str, Path], native_grpc: bool
) -> None:
    """A reload and the page of files want an administrator, who may do all the rest too."""
    server = model_server(model_base_path=base_path, native_grpc=native_grpc, **token_files)
    url, target = f"http://127.0.0.1:{server.rest_port}", f"127.0.0.1:{server.grpc_port}"
    entries = [ModelEntry("default", base_path)]
    for token in (TOKEN, "t00r"):
        with RestClient(url, credentials=Credentials(token)) as rest:
            assert rest.predict("default", ROWS).version == 1
        with GrpcClient(target, credentials=Credentials(token)) as client:
            assert client.predict("default", ROWS).version == 1
    with GrpcClient(target, credentials=Credentials(TOKEN)) as client, pytest.raises(Forbidden, match="administrator"):
        client.reload(entries)
    with GrpcClient(target, credentials=Credentials("t00r")) as client:
        client.reload(entries)
    for target_path in ("/hotswap/models", "/hotswap/models?x=1"):
        statuses = [
            requests.get(url + target_path, headers=headers, timeout=5).status_code
            for headers in ({}, {"Authorization": f"Bearer {TOKEN}"}, {"Authorization": "Bearer t00r"})
        ]
        assert statuses == [401, 403, 200]


def test_everybody_may_predict_where_only_administrators_have_tokens(
    model_server: Any, base_path: str, token_files: dict[str, Path]
) -> None:
    """So a server inside of a network needs no secret but that of whom changes it."""
    server = model_server(model_base_path=base_path, admin_token_file=token_files["admin_token_file"])
    with GrpcClient(f"127.0.0.1:{server.grpc_port}") as client:
        assert client.predict("default", ROWS).version == 1
        with pytest.raises(Unauthenticated):
            client.reload([ModelEntry("default", base_path)])
    assert requests.get(f"http://127.0.0.1:{server.rest_port}/hotswap/models", timeout=5).status_code == 401


def test_a_token_is_replaced_without_a_restart(
    model_server: Any, base_path: str, token_files: dict[str, Path], tmp_path: Path
) -> None:
    """Both count while both are in the file, and a file that cannot be used leaves them as they were."""
    path = token_files["token_file"]
    server = model_server(model_base_path=base_path, token_file=path)

    def knows(token: str) -> list[bool]:
        credentials = Credentials(token)
        with (
            RestClient(f"http://127.0.0.1:{server.rest_port}", credentials=credentials) as rest,
            GrpcClient(f"127.0.0.1:{server.grpc_port}", credentials=credentials) as client,
        ):
            return [is_answered(rest), is_answered(client)]

    assert (knows(TOKEN), knows("n3w")) == ([True] * 2, [False] * 2)
    for text, old, new in ((f"{TOKEN}\nn3w\n", True, True), ("n3w\n", False, True), ("", False, True)):
        (tmp_path / "next").write_text(text)
        (tmp_path / "next").rename(path)
        assert (knows(TOKEN), knows("n3w")) == ([old] * 2, [new] * 2)
    path.unlink()
    assert knows("n3w") == [True, True]


def is_answered(client: PredictClient) -> bool:
    try:
        client.predict("default", ROWS)
    except Unauthenticated:
        return False
    return True


def test_health_is_reported_without_a_token(model_server: Any, tmp_path: Path, base_path: str) -> None:
    """What watches the server need not know the token."""
    (tmp_path / "token").write_text(TOKEN)
    server = model_server(
        model_base_path=base_path, token_file=tmp_path / "token", enable_grpc_healthcheck_service=True
    )
    for path in ("/healthz", "/readyz"):
        assert requests.get(f"http://127.0.0.1:{server.rest_port}{path}", timeout=5).status_code == 200
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    ("name", "text", "reported"),
    [
        ("ssl_config_file", "no such field: 1", "Invalid protobuf file"),
        ("ssl_config_file", 'server_key: "k"', "server_cert"),
        ("ssl_config_file", 'server_key: "k" server_cert: "c" client_verify: true', "custom_ca"),
        ("ssl_config_file", 'server_key: "k" server_cert: "c"', "does not match"),
        ("rest_ssl_certificate_file", "no certificate", "cannot be used for TLS"),
        ("token_file", " \n", "one token a line"),
        ("token_file", None, "No such file"),
    ],
)
def test_bad_files_are_reported_at_the_start(
    model_server: Any, tmp_path: Path, base_path: str, name: str, text: str | None, reported: str
) -> None:
    """A server that cannot protect what it was asked to protect does not start."""
    path = tmp_path / "file"
    if text is not None:
        path.write_text(text)
    with pytest.raises(StartupError, match=reported):
        model_server(model_base_path=base_path, **{name: path})


def test_alts_is_refused(model_server: Any, base_path: str) -> None:
    """It cannot be had here, and going without would be worse."""
    with pytest.raises(StartupError, match="ALTS"):
        model_server(model_base_path=base_path, use_alts_credentials=True)
