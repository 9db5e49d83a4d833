"""Arrays as PostgreSQL reads them: the driver's own adaptation costs more than the server needs for
the whole batch.
"""

import struct
from collections.abc import Sequence
from uuid import UUID

OID_BOOL = 16
OID_BYTEA = 17
OID_INT8 = 20
OID_TEXT = 25
OID_UUID = 2950

_header = struct.Struct("!iiIii").pack
_int4 = struct.Struct("!i").pack
_int8 = struct.Struct("!q").pack
_UUID_SIZE = _int4(16)
_INT8_SIZE = _int4(8)
_BOOLS = (_int4(1) + b"\x00", _int4(1) + b"\x01")
# Most of the twenty-odd arrays of a batch are empty.
_EMPTY = {
    oid: struct.pack("!iii", 0, 0, oid)
    for oid in (OID_BOOL, OID_BYTEA, OID_INT8, OID_TEXT, OID_UUID)
}
_ELEMENT_BYTES = 12  # an int8 with its length
_FIRST_ELEMENT = 20  # after the header of an array of one dimension


def uuid_array(values: Sequence[UUID]) -> bytes:
    """A `uuid[]` parameter in binary form."""
    if not values:
        return _EMPTY[OID_UUID]
    return _array_header(OID_UUID, len(values)) + b"".join(
        [_UUID_SIZE + value.bytes for value in values]
    )


def int8_array(values: Sequence[int]) -> bytes:
    """A `bigint[]` parameter in binary form."""
    if not values:
        return _EMPTY[OID_INT8]
    return _array_header(OID_INT8, len(values)) + b"".join(
        [_INT8_SIZE + _int8(value) for value in values]
    )


def bool_array(values: Sequence[bool]) -> bytes:
    """A `boolean[]` parameter in binary form."""
    if not values:
        return _EMPTY[OID_BOOL]
    return _array_header(OID_BOOL, len(values)) + b"".join([_BOOLS[value] for value in values])


def text_array(values: Sequence[str]) -> bytes:
    """A `text[]` parameter in binary form."""
    return _bytes_array(OID_TEXT, [value.encode() for value in values])


def bytea_array(values: Sequence[bytes]) -> bytes:
    """A `bytea[]` parameter in binary form."""
    return _bytes_array(OID_BYTEA, values)


def read_int8_array(value: bytes | None) -> Sequence[int]:
    """The items of a `bigint[]` result in binary form; NULL and the empty array are ()."""
    if value is None or len(value) <= _ELEMENT_BYTES:
        return ()
    count = (len(value) - _FIRST_ELEMENT) // _ELEMENT_BYTES
    return struct.unpack_from("!" + "iq" * count, value, _FIRST_ELEMENT)[1::2]


def _bytes_array(oid: int, values: Sequence[bytes]) -> bytes:
    if not values:
        return _EMPTY[oid]
    parts = [_array_header(oid, len(values))]
    for value in values:
        parts.append(_int4(len(value)))
        parts.append(value)
    return b"".join(parts)


def _array_header(oid: int, count: int) -> bytes:
    return _header(1, 0, oid, count, 1)
