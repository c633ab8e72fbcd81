"""Tables as they come: any separator, encoding and word for "missing", and what is wrong in one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.tables.options import UnusableTable
from flows.tables.reading import read_table
from tests.flows.tables.tables import customers, written


def file(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_any_separator_is_found(tmp_path: Path, separator: str) -> None:
    """The table is the same whatever parts its columns."""
    frame = read_table(written(customers(), tmp_path / "some.csv", sep=separator)).frame
    expected = customers()
    assert list(frame) == list(expected)
    assert np.allclose(frame["spend"], expected["spend"], equal_nan=True)
    assert frame["plan"].isna().sum() == expected["plan"].isna().sum()


@pytest.mark.parametrize(("encoding", "told"), [("utf-8-sig", ""), ("utf-16", "UTF-16"), ("cp1252", "Windows-1252")])
def test_any_encoding_is_found(tmp_path: Path, encoding: str, told: str) -> None:
    """What is not UTF-8 is read all the same, and told."""
    table = read_table(file(tmp_path / "some.csv", "größe,ort\n1.5,Zürich\n2,Málaga\n".encode(encoding)))
    assert list(table.frame) == ["größe", "ort"]
    assert list(table.frame["ort"]) == ["Zürich", "Málaga"]
    assert told in " ".join(table.notes)


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    """Numbers stay numbers, and times, booleans and categories become the texts that clients send."""
    path = tmp_path / "some.parquet"
    when = pd.date_range("2024-01-01", periods=3, freq="6h")
    given = {"n": [1, 2, 3], "is": [True, None, False], "c": pd.Categorical(["a", "b", "a"]), "when": when}
    pd.DataFrame(given).to_parquet(path)
    frame = read_table(path).frame
    assert frame["n"].tolist() == [1.0, 2.0, 3.0]
    assert frame["is"].fillna("").tolist() == ["true", "", "false"]
    assert frame["c"].tolist() == ["a", "b", "a"]
    assert frame["when"].tolist() == ["2024-01-01 00:00:00", "2024-01-01 06:00:00", "2024-01-01 12:00:00"]


def test_what_stands_for_missing_is_missing(tmp_path: Path) -> None:
    """Empty values and the usual words are missing; in numbers a question mark and infinity too, which is told."""
    table = read_table(file(tmp_path / "some.csv", "a,b,c\n1,x,1\n?,NA,inf\n3,,2\n"))
    assert table.frame["a"].isna().tolist() == [False, True, False]
    assert table.frame["b"].isna().tolist() == [False, True, True]
    assert table.frame["c"].isna().tolist() == [False, True, False]
    assert table.notes == ("'a': '?' counts as missing", "'c': 1 infinite values count as missing")


def test_codes_and_decimal_commas(tmp_path: Path) -> None:
    """Postcodes keep their zeros, and a decimal comma is read as what it is."""
    table = read_table(file(tmp_path / "some.csv", "code;price\n01067;1,5\n80331;2\n"))
    assert table.frame["code"].tolist() == ["01067", "80331"]
    assert table.frame["price"].tolist() == [1.5, 2.0]
    assert "the decimal comma was read as a point" in " ".join(table.notes)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty"),
        ("a,b\n", "has no rows below its header"),
        ("a,b\n1,2\n1,2,3\n", "Line 3 of {path} has 3 values, and the header 2"),
        ("a,b\n1,2\n1\n", "Line 3 of {path} has 1 values, and the header 2"),
        ("a,b,a\n1,2,3\n", "has 2 columns called 'a': give each its own name"),
        ("a,,c\n1,2,3\n", "Column 2 of {path} has no name"),
        (b"PAR1 and no more", "is no readable Parquet file"),
        (b"a,b\n\x81,\x8d\n", "is neither UTF-8 nor Windows-1252 text"),
    ],
)
def test_a_bad_file_is_told_in_one_sentence(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    """Each says what is wrong, and where."""
    path = file(tmp_path / "bad.csv", content)
    with pytest.raises(UnusableTable) as found:
        read_table(path)
    assert sentence.format(path=path) in str(found.value)
    assert "\n" not in str(found.value)


def test_no_file_is_told(tmp_path: Path) -> None:
    """The path is named, with what to do."""
    with pytest.raises(UnusableTable, match="No such file or directory; name a CSV or Parquet file"):
        read_table(tmp_path / "none.csv")
