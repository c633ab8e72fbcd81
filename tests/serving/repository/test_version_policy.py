"""The aspired versions of any set under any policy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.repository.version_policy import All, Latest, Specific, VersionPolicy, aspired_versions, parse_version

VERSIONS = st.lists(st.integers(0, 2**63 - 1))
POLICIES = st.one_of(st.builds(Latest, st.integers(0, 12)), st.just(All()), st.builds(Specific, VERSIONS.map(tuple)))


@given(VERSIONS, POLICIES)
def test_aspired_are_on_disk(on_disk: list[int], policy: VersionPolicy) -> None:
    """Only versions on disk are aspired, each once, lowest first."""
    aspired = aspired_versions(on_disk, policy)
    assert set(aspired) <= set(on_disk)
    assert list(aspired) == sorted(set(aspired))


@given(VERSIONS, st.integers(0, 12))
def test_latest(on_disk: list[int], count: int) -> None:
    """`latest` takes the highest versions, at least one if there is one."""
    aspired = aspired_versions(on_disk, Latest(count))
    assert len(aspired) == min(max(count, 1), len(set(on_disk)))
    assert all(kept > left for kept in aspired for left in set(on_disk) - set(aspired))


@given(VERSIONS, VERSIONS)
def test_all_and_specific(on_disk: list[int], wanted: list[int]) -> None:
    """`all` takes everything; `specific` takes what is both wanted and there."""
    assert set(aspired_versions(on_disk, All())) == set(on_disk)
    assert set(aspired_versions(on_disk, Specific(tuple(wanted)))) == set(on_disk) & set(wanted)


@given(st.integers(0, 2**63 - 1), st.sampled_from(["{}", "00{}", "+{}", " {} "]))
def test_numeric_names_are_versions(version: int, form: str) -> None:
    """Zeros, a plus sign and spaces around a number do not hide it."""
    assert parse_version(form.format(version)) == version


@pytest.mark.parametrize("version", [-1, -(2**63)])
def test_negative_numbers_are_versions(version: int) -> None:
    """A minus sign is a sign like any other."""
    assert parse_version(f"{version}") == parse_version(f" -00{-version}") == version


@pytest.mark.parametrize(
    "name",
    ["1.0", "tmp.3", "3_new", "1_000", "٧", "", "+", "++1", "+-1", "-", str(2**63), str(-(2**63) - 1), ".staging"],
)
def test_other_names_are_not(name: str) -> None:
    """Anything else, or a number beyond int64, is not a version."""
    assert parse_version(name) is None
