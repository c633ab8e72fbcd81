"""
Dates and times as text: which format a column has, and how a graph reads it.

The same patterns tell the format when a table is read and are in the graph afterwards. Each is understood by RE2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

_TIME = r"(?:[T ]+(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,]\d+)?)?)?\s*(?:Z|UTC|[+-]\d{2}:?\d{2})?"


@dataclass(frozen=True, slots=True)
class Format:
    """How a date is written: three groups in an order, then hour, minute and second."""

    pattern: str
    year: int
    month: int
    day: int
    shown: str


FORMATS = {
    "ymd": Format(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})" + _TIME, 1, 2, 3, "year-month-day"),
    "compact": Format(r"((?:19|20)\d{2})(0[1-9]|1[0-2])([0-3]\d)" + _TIME, 1, 2, 3, "yearmonthday"),
    "dmy": Format(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})" + _TIME, 3, 2, 1, "day-month-year"),
    "mdy": Format(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})" + _TIME, 3, 1, 2, "month-day-year"),
}
"""by the name that a schema keeps"""


def format_of(values: pd.Series) -> str:
    """
    The name of the format that these texts have, or "".

    Where day and month cannot be told apart, numbers with slashes are month first, and others day first.
    """
    sample = values.iloc[:1000]
    for name, written in FORMATS.items():
        if sample.str.fullmatch(written.pattern).all() and _matches(values, written.pattern):
            return _by_months(values, written.pattern) if name == "dmy" else name
    return ""


def _matches(values: pd.Series, pattern: str) -> bool:
    return bool(values.str.fullmatch(pattern).mean() > 0.99)


def _by_months(values: pd.Series, pattern: str) -> str:
    parts = values.str.extract(f"^{pattern}$")[[0, 1]].astype(float).max()
    if parts[0] > 12 or parts[1] > 12:
        return "dmy" if parts[0] > 12 else "mdy"
    return "mdy" if values.str.contains("/", regex=False).all() else "dmy"


def parse(texts: Any, format_name: str) -> tuple[Any, Any, Any]:
    """
    Read dates in a graph.

    Returns:
        Days since 1970-01-01 and seconds of the day, float64 [batch], and whether it is a date, bool [batch].
    """
    import tensorflow as tf

    written = FORMATS[format_name]
    is_date = tf.strings.regex_full_match(texts, written.pattern)

    def part(group: int) -> Any:
        # A leading zero is all there is where hours, minutes or seconds are not written.
        digits = tf.strings.regex_replace(texts, f"^{written.pattern}$", rf"0\{group}", replace_global=False)
        return tf.strings.to_number(tf.where(is_date, digits, "0"), tf.float64)

    days = _days(part(written.year), part(written.month), part(written.day))
    return days, part(4) * 3600 + part(5) * 60 + part(6), is_date


def _days(year: Any, month: Any, day: Any) -> Any:
    """Days since 1970-01-01 in the Gregorian calendar, its years counted from March."""
    import tensorflow as tf

    is_early = month <= 2
    year = tf.where(is_early, year - 1, year)
    of_year = tf.floor((153 * tf.where(is_early, month + 9, month - 3) + 2) / 5) + day - 1
    leap_days = tf.floor(year / 4) - tf.floor(year / 100) + tf.floor(year / 400)
    return 365 * year + leap_days + of_year - 719468


def features(days: Any, seconds: Any, with_time: bool) -> Any:
    """
    What a network can learn from: when it is, in which season, on which weekday, and at which time of the day.

    Returns:
        float32 [batch, 10], or [batch, 14] with the time; the first is days since 1970.
    """
    import tensorflow as tf

    weekdays = [tf.cast(tf.equal(tf.math.floormod(days + 4, 7), number), tf.float64) for number in range(7)]
    found = [days + seconds / 86400, *_circle(days / 365.2425, 1), *weekdays]
    if with_time:
        found += _circle(seconds / 86400, 2)
    return tf.cast(tf.stack(found, axis=1), tf.float32)


def _circle(turns: Any, harmonics: int) -> list[Any]:
    import tensorflow as tf

    angles = [2 * math.pi * harmonic * turns for harmonic in range(1, harmonics + 1)]
    return [function(angle) for angle in angles for function in (tf.sin, tf.cos)]
