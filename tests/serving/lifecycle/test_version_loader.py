"""How versions are loaded, by the settings of the server and the size of the models."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.lifecycle.version_loader import MAX_SMALL_MODEL_BYTES, VersionLoader
from serving.repository.model_config import ModelEntry
from serving.runtime.tf_session import Session
from serving.settings import ServerSettings
from tests.conftest import TinyModel


@pytest.mark.parametrize(
    ("more_bytes", "configured", "threads"),
    [(0, 0, 1), (MAX_SMALL_MODEL_BYTES, 0, 0), (0, 3, 3)],
    ids=["small", "large", "configured"],
)
def test_operations_of_small_models_use_one_thread(
    more_bytes: int,
    configured: int,
    threads: int,
    tiny_model: TinyModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Large models use as many as TensorFlow likes, and a setting decides for all."""
    path = tiny_model(tmp_path / "tiny", 1)
    (path / "assets.extra").mkdir(exist_ok=True)
    (path / "assets.extra" / "more").write_bytes(bytes(more_bytes))
    seen: list[int] = []
    real = Session.__init__

    def opened(session: Session, meta_graph: object, intra_op_threads: int, *others: object) -> None:
        seen.append(intra_op_threads)
        real(session, meta_graph, intra_op_threads, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "__init__", opened)
    loader = VersionLoader(ServerSettings(tensorflow_intra_op_parallelism=configured), lambda *_: None)
    loader.choose_threads([ModelEntry("tiny", str(tmp_path / "tiny"))])
    servable = loader.load("tiny", 1, path, None)
    servable.close()
    loader.close()
    assert seen == [threads]
