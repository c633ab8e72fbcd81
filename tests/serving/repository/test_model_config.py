"""models.config survives a round trip and is read as protobuf reads it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.protocol.errors import InvalidRequest
from serving.repository.model_config import Logging, ModelEntry, parse, render
from serving.repository.version_policy import All, Latest, Specific

POLICIES = st.one_of(
    st.builds(Latest, st.integers(0, 2**31)),
    st.just(All()),
    st.builds(Specific, st.lists(st.integers(0, 2**63 - 1)).map(tuple)),
)
NAMES = st.text(st.characters(codec="utf-8"))
ENTRIES = st.builds(
    ModelEntry, NAMES, NAMES, POLICIES, st.dictionaries(NAMES, st.integers(-(2**63), 2**63 - 1), max_size=3)
)


@given(st.lists(ENTRIES, max_size=3))
def test_round_trip(entries: list[ModelEntry]) -> None:
    """Every list of models is read back as it was written."""
    assert parse(render(entries)) == entries


def test_reads_what_people_write() -> None:
    """Comments, single quotes, angle brackets, lists, separators and joined strings are understood."""
    text = """
    # the models of this host
    model_config_list: <
      config { name: 'iris', base_path: "/models" '/iris'; model_platform: "tensorflow"
               model_version_policy { specific { versions: [1, 0x2] } }
               version_labels { key: 'caf\\303\\251' value: 1 } }
      config { name: "b" model_type: TENSORFLOW logging_config {} }
    >
    """
    assert parse(text) == [
        ModelEntry("iris", "/models/iris", Specific((1, 2)), {"café": 1}),
        ModelEntry("b", "", Latest(1), {}, platform="", model_type=1, logging=Logging()),
    ]


def test_empty_list() -> None:
    """A list without models, or nothing but a comment, is an empty configuration."""
    assert parse("model_config_list {}") == parse("# nothing yet") == []


@pytest.mark.parametrize(
    "text",
    [
        "model_config_list {",
        "model_config_list }",
        "custom_model_config {}",
        "model_config_list { config { nam: 'a' } }",
        "model_config_list { config { name: a } }",
        "model_config_list { config { name 'a' } }",
        "model_config_list { config: 'a' }",
        "model_config_list { config { version_labels { key: 'a' value: 'b' } } }",
        "model_config_list { config { model_type: FAST } }",
        "model_config_list { config { name: 'a\n' } }",
        "%",
    ],
)
def test_refuses_what_protobuf_refuses(text: str) -> None:
    """Text that is not this message is refused with one sentence."""
    with pytest.raises(InvalidRequest, match=r"models\.config: "):
        parse(text)
