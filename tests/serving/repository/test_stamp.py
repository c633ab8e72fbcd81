"""What publish keeps with a version."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.repository.stamp import STAMP_FILE, GoldenRows, Stamp

ROWS = np.random.default_rng(0).random((5, 4), np.float32)
WHOLE = Stamp(3, "d1", "r1", "data", ("length", "width"), {"test_accuracy": 0.9}, "2026-11-24T03:03:42+00:00")


def written(directory: Path, text: str) -> Path:
    (directory / STAMP_FILE).parent.mkdir()
    (directory / STAMP_FILE).write_text(text)
    return directory


def test_a_stamp_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Every field survives the file, golden rows to the last bit."""
    replace(WHOLE, golden=GoldenRows({"input": ROWS}, {"output": ROWS[:, :3]})).write(tmp_path)
    read = Stamp.read(tmp_path)
    assert read is not None
    assert replace(read, golden=None) == WHOLE
    assert read.golden is not None
    np.testing.assert_array_equal(read.golden.inputs["input"], ROWS)
    np.testing.assert_array_equal(read.golden.outputs["output"], ROWS[:, :3])


def test_a_stamp_of_another_release_is_read(tmp_path: Path) -> None:
    """What it lacks is unknown, and what only other releases know is left out."""
    assert Stamp.read(written(tmp_path, json.dumps({"digest": "d1", "since": 7}))) == Stamp(digest="d1")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "7", '{"metrics": 7}', '{"golden": {"inputs": [[1.0]]}}', '{"golden": {"inputs": [[1], [1, 2]]}}'],
)
def test_a_damaged_stamp_is_no_stamp(text: str, tmp_path: Path) -> None:
    """It says nothing, so its version is treated as one that nobody published."""
    assert Stamp.read(written(tmp_path, text)) is None


def test_answers_agree_within_the_tolerance() -> None:
    """Another batch size changes the last bits, which is the same answer; another shape, name or class is not."""
    golden = GoldenRows({"input": ROWS}, {"output": ROWS})
    assert golden.agree_with({"output": ROWS + np.float32(5e-6), "more": ROWS})
    for other in (ROWS + np.float32(1e-3), ROWS[:, :3], np.full_like(ROWS, np.nan)):
        assert not golden.agree_with({"output": other})
    assert not golden.agree_with({"another": ROWS})


@pytest.mark.parametrize(
    ("kept", "other"),
    [
        (np.array(["a", "ü"], object), np.array([b"a", b"u"], object)),
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([True, False]), np.array([True, True])),
        (np.array([5e6, np.nan], np.float32), np.array([5.001e6, np.nan], np.float32)),
    ],
)
def test_golden_rows_of_any_type_survive_the_file(kept: Any, other: Any, tmp_path: Path) -> None:
    """Strings, integers and booleans must be equal, and large floats as near as their size lets them be."""
    replace(WHOLE, golden=GoldenRows({"x": kept}, {"y": kept})).write(tmp_path)
    read = Stamp.read(tmp_path)
    assert read is not None
    assert read.golden is not None
    assert read.golden.inputs["x"].tolist() == pytest.approx(kept.tolist(), nan_ok=True)
    answered = np.array([each.encode() for each in kept], object) if kept.dtype == object else kept
    assert read.golden.agree_with({"y": answered})
    assert not read.golden.agree_with({"y": other})


def test_golden_rows_of_earlier_releases_are_read() -> None:
    """They had one input and one output, of floats."""
    golden = GoldenRows.decode({"inputs": ROWS.tolist(), "outputs": ROWS[:, :3].tolist()})
    assert golden.agree_with({"output": ROWS[:, :3]})
    np.testing.assert_array_equal(golden.inputs["input"], ROWS)
