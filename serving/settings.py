"""The settings of a server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROVEN, NEVER = "proven", "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """The settings of one server; most are named as the flags of ``tensorflow_model_server``."""

    host: str = "127.0.0.1"
    """The address that both ports listen on."""
    grpc_port: int | None = 0
    """Flag ``port``. 0 lets the kernel choose, None turns gRPC off."""
    rest_port: int | None = 0
    """Flag ``rest_api_port``. 0 lets the kernel choose, None turns REST off."""
    grpc_socket_path: str = ""
    """A Unix socket that gRPC listens on too."""
    ssl_config_file: Path | None = None
    """An ``SSLConfig`` in text format: gRPC uses TLS, and may require client certificates."""
    use_alts_credentials: bool = False
    """Refused when true: ALTS exists on Google Cloud only."""
    rest_ssl_certificate_file: Path | None = None
    """A certificate (chain) as PEM: REST uses TLS."""
    rest_ssl_key_file: Path | None = None
    """Its key as PEM; None if `rest_ssl_certificate_file` holds it too."""
    token_file: Path | None = None
    """A file with bearer tokens, one a line: REST and gRPC require one of them of every request but health checks."""
    admin_token_file: Path | None = None
    """The same for what changes the server or tells of its files; then those of `token_file` are for the rest alone."""
    trusted_keys_file: Path | None = None
    """Public Ed25519 keys as PEM: only versions that one of them has signed are served; read again at each load."""
    model_name: str = "default"
    """The name of the one model at `model_base_path`."""
    model_base_path: str = ""
    """Where the versions of a single model are; ignored when there is a `model_config_file`."""
    model_config_file: Path | None = None
    """A ``ModelServerConfig`` in text format."""
    model_config_file_poll_wait_seconds: int = 0
    """Apply the config file again every so many seconds; 0 never."""
    allow_version_labels_for_unavailable_models: bool = False
    """Let a new label point at a version that is not available yet."""
    default_version_label: str | None = None
    """Requests with neither version nor label go to the version with this label, where that is available."""
    require_all_models: bool = True
    """Fail to start when no version of a model can be loaded; otherwise serve the other models."""
    file_system_poll_wait_seconds: int = 1
    """Seconds between two polls of the base paths; 0 polls once, a negative number never."""
    max_num_load_retries: int = 5
    """How often a failed load is retried."""
    load_retry_interval_micros: int = 60_000_000
    """Microseconds between two attempts."""
    num_load_threads: int = 0
    """How many versions are loaded at a time; 0 means one per CPU."""
    saved_model_tags: str = "serve"
    """The tags of the meta graph to load, separated by commas."""
    enable_model_warmup: bool = True
    """Run the warm-up requests of a version before it becomes available."""
    num_request_iterations_for_warmup: int = 0
    """How often each warm-up request runs; 0 means once."""
    rest_api_timeout_in_ms: int = 30_000
    """How long a run of the graph may take over REST; 0 or less means no limit."""
    rest_api_enable_cors_support: bool = False
    """Let browsers of other origins read the answers."""
    rest_max_body_bytes: int = 256 * 2**20
    """The largest body of a REST request; a larger one is refused with 413."""
    rest_max_buffered_bytes: int = 2**30
    """How much the bodies of all REST requests in progress may take together; what exceeds it is refused with 503."""
    rest_max_head_bytes: int = 2**16
    """How long a request line (414) or all headers together (431) may be."""
    rest_max_connections: int = 16_384
    """How many REST connections may be open; the next one is refused with 503."""
    rest_idle_seconds: float = 60.0
    """After how many seconds an idle REST connection is closed."""
    rest_receive_seconds: float = 30.0
    """How long a client may take to send a head, pause within a body (both: 408) or leave an answer unread."""
    enable_batching: bool = False
    """Enforce the limits of the batching parameters, as TensorFlow Serving's batching does."""
    batching_parameters_file: Path | None = None
    """A ``BatchingParameters`` in text format."""
    enable_per_model_batching_parameters: bool = False
    """Take the batching parameters from each version's own ``batching_params.pbtxt``; one without has no limits."""
    merge_requests: str = PROVEN
    """Which requests that arrive together run as one: ``proven``, those of signatures that are proven to treat each row
    by itself, which can change the last bit of a float, or ``never`` any."""
    monitoring_config_file: Path | None = None
    """A ``MonitoringConfig`` in text format: the path of the Prometheus page."""
    enable_grpc_healthcheck_service: bool = False
    """Answer ``grpc.health.v1.Health``."""
    enable_signature_method_name_check: bool = False
    """Refuse a classify, regress or predict on a signature made for something else."""
    enable_serialization_as_tensor_content: bool = False
    """Send gRPC tensors as ``tensor_content`` instead of typed fields."""
    grpc_max_threads: int = 4 * (os.cpu_count() or 1)
    """How many slow graphs run at a time."""
    native_grpc: bool = True
    """Serve gRPC with pygrpc-native where it is installed, otherwise with grpcio."""
    tensorflow_intra_op_parallelism: int = 0
    """Threads per operation; 0 means one where all models are below 1 MB at the start, otherwise all CPUs."""
    tensorflow_inter_op_parallelism: int = 0
    """How many operations of one run may run at a time; 0 lets TensorFlow decide."""
    drain_seconds: float = 30.0
    """How long requests in flight may take to end when the server stops."""
    request_log_directory: Path | None = None
    """Keep a sample of requests and answers here, as TFRecord files of ``PredictionLog``; none means no log."""
    request_log_sampling_rate: float = 0.1
    """Which share of the requests is kept, from 0 to 1, of models whose ``logging_config`` does not say."""
    request_log_leave_out: str = ""
    """The inputs, outputs and features of examples that are not kept, separated by commas."""
    request_log_hash: str = ""
    """Those of which only a keyed hash is kept, separated by commas."""
    request_log_key_file: Path | None = None
    """A file with the key of these hashes, at least 16 bytes."""
    request_log_file_bytes: int = 64 * 2**20
    """How large a file of the log becomes before the next one is begun."""
    request_log_file_seconds: float = 3600.0
    """How old it becomes."""
    request_log_total_bytes: int = 2**30
    """How large all files of the log may be together; the oldest are deleted."""
