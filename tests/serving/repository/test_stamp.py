"""What publish keeps with a version."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

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
    replace(WHOLE, golden=GoldenRows(ROWS, ROWS[:, :3])).write(tmp_path)
    read = Stamp.read(tmp_path)
    assert read is not None
    assert replace(read, golden=None) == WHOLE
    assert read.golden is not None
    np.testing.assert_array_equal(read.golden.inputs, ROWS)
    np.testing.assert_array_equal(read.golden.outputs, ROWS[:, :3])


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
    """Another batch size changes the last bits, which is the same answer; another shape or class is not."""
    golden = GoldenRows(ROWS, ROWS)
    assert golden.agree_with(ROWS + np.float32(5e-6))
    assert not golden.agree_with(ROWS + np.float32(1e-3))
    assert not golden.agree_with(ROWS[:, :3])
    assert not golden.agree_with(np.full_like(ROWS, np.nan))
