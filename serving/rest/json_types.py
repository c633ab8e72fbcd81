"""The types of tensor that JSON can carry, by their ``DataType`` numbers."""

from __future__ import annotations

FLOATS = {1, 2}
INTEGERS = {
    # type -> lowest and highest number that is read; smaller types wrap
    3: (-(2**31), 2**31 - 1),
    4: (-(2**31), 2**31 - 1),
    5: (-(2**31), 2**31 - 1),
    6: (-(2**31), 2**31 - 1),
    9: (-(2**63), 2**63 - 1),
    22: (0, 2**32 - 1),
    23: (0, 2**64 - 1),
}
STRING, BOOL, UINT64 = 7, 10, 23
JSON_TYPES = {*FLOATS, *INTEGERS, STRING, BOOL}
