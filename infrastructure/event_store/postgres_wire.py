"""One prepared statement over a raw libpq connection, with binary arrays and a deadline.

The driver's own adaptation of arrays costs more than the server needs for the whole batch.
"""

import select
import struct
import time
from collections.abc import Sequence
from uuid import UUID

import psycopg
from psycopg import pq

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


class Refused(Exception):
    """The server answered with an error and the connection goes on: certainly nothing is stored."""

    def __init__(self, sqlstate: str, message: str) -> None:
        super().__init__(f"{message} ({sqlstate})")
        self.sqlstate = sqlstate


class NotSent(Exception):
    """The connection was gone before the statement left: certainly nothing is stored."""


class AnswerLost(Exception):
    """The statement was sent and no answer came: it may be stored."""


class AnswerLate(AnswerLost):
    """The connection stands and the server is silent."""


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


class PreparedCall:
    """A connection which runs one prepared statement; not shared between threads."""

    NAME = b"append"

    def __init__(
        self, connection: psycopg.Connection, statement: str, answer_seconds_max: float
    ) -> None:
        """Prepare `statement` on an open connection in autocommit mode. Raises Refused."""
        self._connection = connection  # its end would close the libpq connection below
        self._libpq = connection.pgconn
        self._answer_seconds_max = answer_seconds_max
        prepared = self._libpq.prepare(self.NAME, statement.encode())
        if prepared.status != pq.ExecStatus.COMMAND_OK:
            raise _refusal(prepared)
        self._libpq.nonblocking = 1
        self._readable = select.poll()
        self._readable.register(self._libpq.socket, select.POLLIN)
        self._either = select.poll()
        self._either.register(self._libpq.socket, select.POLLIN | select.POLLOUT)

    def execute(self, parameters: Sequence[bytes], formats: Sequence[int]) -> pq.abc.PGresult:
        """Run the statement with these parameters and return its one row, in binary form.

        Raises Refused, NotSent, AnswerLost. After the last two the connection is of no use.
        """
        try:
            self._notice_closure()
            self._libpq.send_query_prepared(self.NAME, parameters, formats, 1)
        except psycopg.OperationalError as error:
            raise NotSent(str(error)) from error
        try:
            return self._answer()
        except psycopg.OperationalError as error:
            raise AnswerLost(str(error)) from error

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _notice_closure(self) -> None:
        """A server that went away while nothing was sent left a farewell and an end of file."""
        while self._readable.poll(0):
            self._libpq.consume_input()
        if self._libpq.status != pq.ConnStatus.OK:
            raise psycopg.OperationalError("the server closed the connection")

    def _answer(self) -> pq.abc.PGresult:
        deadline = time.monotonic() + self._answer_seconds_max
        while self._libpq.flush():
            self._wait(self._either, deadline)
            self._libpq.consume_input()
        row: pq.abc.PGresult | None = None
        refusal: Refused | None = None
        while True:
            while self._libpq.is_busy():
                self._wait(self._readable, deadline)
                self._libpq.consume_input()
            result = self._libpq.get_result()
            if result is None:
                break
            if result.status == pq.ExecStatus.TUPLES_OK:
                row = result
            else:  # also after the row: the transaction ends behind it
                refusal = _refusal(result)
        if self._libpq.status != pq.ConnStatus.OK:
            raise AnswerLost(str(refusal or "the connection was lost"))
        if refusal is not None:
            raise refusal
        if row is None:
            raise AnswerLost("the server sent no result")
        return row

    def _wait(self, poll: select.poll, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise AnswerLate(f"no answer within {self._answer_seconds_max:g} s")


def _refusal(result: pq.abc.PGresult) -> Refused:
    state = result.error_field(pq.DiagnosticField.SQLSTATE) or b"?????"
    primary = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
    return Refused(state.decode(), primary.decode(errors="replace").strip())
