"""
Says what to do about a model that needs operations which TensorFlow itself does not have.

Free of TensorFlow: this is added wherever a failed load is shown. The server itself keeps to TensorFlow's words.
"""

from __future__ import annotations

import re

_FAMILIES = {
    "TensorFlow Text": re.compile(
        "TFText>|CaseFold|ConstrainedSequence|FastBert|FastWordpiece|FindSourceOffsets|MaxSpanningTree|NormalizeUTF8|"
        "PhraseTokenize|RegexSplit|RougeL|SentenceFragments|Sentencepiece|SplitMergeTokenize|TokenizerFromLogits|"
        "UnicodeScriptTokenize|WhitespaceTokenize|WordpieceTokenize"
    ),
    "Decision Forests": re.compile("SimpleML"),
}
"""How the operations of the packages begin."""

_UNREGISTERED = re.compile("Op type not registered '([^']+)'")


def explained(message: str) -> str:
    """A load error, and what to do about it where operations are missing."""
    found = _UNREGISTERED.search(message)
    return message if found is None else f"{message} {next_step(found[1])}"


def next_step(operation: str) -> str:
    """What to do about one of them."""
    for family, pattern in _FAMILIES.items():
        if pattern.match(operation):
            return (
                f"Operation {operation!r} is part of {family}, which is not installed or does not fit this TensorFlow: "
                "install hotswap's extra `ops` where the model is served, and start the server again."
            )
    return (
        f"This TensorFlow has no operation {operation!r}: export the model without it, or serve it by a TensorFlow "
        "that is not older than the one that exported it."
    )
