"""How does a recorded request come to harm?"""

from __future__ import annotations

from hypothesis import strategies as st


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """These bytes with one place, or four, flipped, inserted, deleted, doubled or cut off."""
    harmed = bytearray(content)
    for _ in range(draw(st.sampled_from([1, 1, 1, 4]))):
        start = draw(st.integers(0, len(harmed)))
        end = start + draw(st.integers(1, 16))
        kind = draw(st.sampled_from(["flip", "flip", "flip", "insert", "delete", "double", "cut"]))
        if kind == "flip":
            harmed[start : start + 1] = bytes(each ^ 1 << draw(st.integers(0, 7)) for each in harmed[start : start + 1])
        elif kind == "insert":
            harmed[start:start] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "delete":
            del harmed[start:end]
        elif kind == "double":
            harmed[start:start] = harmed[start:end]
        else:
            del harmed[start:]
    return bytes(harmed)
