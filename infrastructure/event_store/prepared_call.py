"""One prepared statement on one connection to PostgreSQL, spoken to libpq itself: what is certain
about its outcome, and what is not.
"""

import asyncio
import os
import select
import socket
import time
from collections.abc import Callable, Sequence

import psycopg
from psycopg import pq


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


Told = Callable[["pq.abc.PGresult | Refused | AnswerLost"], None]
"""Hears how a call ended."""


class PreparedCall:
    """A connection which runs one prepared statement; not shared between threads.

    `execute` blocks. An event loop sends, and takes the answer as it comes: see `LoopCall`.
    """

    NAME = b"append"

    def __init__(
        self, connection: psycopg.Connection, statement: str, answer_seconds_max: float
    ) -> None:
        """Prepare `statement` on an open connection in autocommit mode. Raises Refused."""
        self._connection = connection  # its end would close the libpq connection below
        self._libpq = connection.pgconn
        self.answer_seconds_max = answer_seconds_max
        prepared = self._libpq.prepare(self.NAME, statement.encode())
        if prepared.status != pq.ExecStatus.COMMAND_OK:
            raise _refusal(prepared)
        self._libpq.nonblocking = 1
        self.socket = self._libpq.socket
        self._readable = select.poll()
        self._readable.register(self.socket, select.POLLIN)
        self._either = select.poll()
        self._either.register(self.socket, select.POLLIN | select.POLLOUT)
        self._row: pq.abc.PGresult | None = None
        self._refusal: Refused | None = None

    def execute(self, parameters: Sequence[bytes], formats: Sequence[int]) -> pq.abc.PGresult:
        """Run the statement with these parameters and return its one row, in binary form.

        Raises Refused, NotSent, AnswerLost. After the last two the connection is of no use.
        """
        self.send(parameters, formats)
        deadline = time.monotonic() + self.answer_seconds_max
        while self.has_unsent():
            self._wait(self._either, deadline)
            self.receive()
        while (row := self.answer()) is None:
            self._wait(self._readable, deadline)
            self.receive()
        return row

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    # ------------------------------------------------------------------ without blocking

    def send(self, parameters: Sequence[bytes], formats: Sequence[int]) -> None:
        """Begin. Raises NotSent."""
        self._row, self._refusal = None, None
        try:
            while self._readable.poll(0):  # a server that went away left a farewell, and an end
                self._libpq.consume_input()
            if self._libpq.status != pq.ConnStatus.OK:
                raise NotSent("the server closed the connection")
            self._libpq.send_query_prepared(self.NAME, parameters, formats, 1)
        except psycopg.OperationalError as error:
            raise NotSent(str(error)) from error

    def has_unsent(self) -> bool:
        """Send on; whether the socket takes no more for now. Raises AnswerLost."""
        try:
            return bool(self._libpq.flush())
        except psycopg.OperationalError as error:
            raise AnswerLost(str(error)) from error

    def receive(self) -> None:
        """Take what the socket has. Raises AnswerLost."""
        try:
            self._libpq.consume_input()
        except psycopg.OperationalError as error:
            raise AnswerLost(str(error)) from error

    def answer(self) -> pq.abc.PGresult | None:
        """The row once all of the answer was received, before that None. Raises Refused,
        AnswerLost.
        """
        try:
            while not self._libpq.is_busy():
                result = self._libpq.get_result()
                if result is None:
                    return self._whole_answer()
                if result.status == pq.ExecStatus.TUPLES_OK:
                    self._row = result
                else:  # also after the row: the transaction ends behind it
                    self._refusal = _refusal(result)
        except psycopg.OperationalError as error:
            raise AnswerLost(str(error)) from error
        return None

    def _whole_answer(self) -> pq.abc.PGresult:
        if self._libpq.status != pq.ConnStatus.OK:
            raise AnswerLost(str(self._refusal or "the connection was lost"))
        if self._refusal is not None:
            raise self._refusal
        if self._row is None:
            raise AnswerLost("the server sent no result")
        return self._row

    def too_late(self) -> AnswerLate:
        """The error of an answer that did not come in time."""
        return AnswerLate(f"no answer within {self.answer_seconds_max:g} s")

    def _wait(self, poll: select.poll, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise self.too_late()


class LoopCall:
    """The same in an event loop, one call at a time; made there, and closed there."""

    def __init__(self, call: PreparedCall) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._told: Told | None = None
        self._late: asyncio.TimerHandle | None = None
        self._sending = False
        # With a number of its own: libpq closes its socket as soon as the connection ends, and what
        # the loop opens next gets that number.
        self._socket = socket.socket(fileno=os.dup(call.socket))
        self._loop.add_reader(self._socket, self._read)

    def begin(self, parameters: Sequence[bytes], formats: Sequence[int], told: Told) -> None:
        """Run the statement with these parameters; `told` gets its one row, Refused or AnswerLost,
        later. Raises NotSent, and then `told` is not called.
        """
        self._call.send(parameters, formats)
        self._told = told
        # Loops look at sockets before timers: an answer counts that came while this process slept.
        self._late = self._loop.call_later(
            self._call.answer_seconds_max, lambda: self._end(self._call.too_late())
        )
        try:
            self._send_on()
        except AnswerLost as error:
            self._loop.call_soon(self._end, error)

    def close(self) -> None:
        """Close the connection."""
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._call.close()

    def _send_on(self) -> None:
        unsent = self._call.has_unsent()
        if unsent is not self._sending:
            if unsent:
                self._loop.add_writer(self._socket, self._write)
            else:
                self._loop.remove_writer(self._socket)
            self._sending = unsent

    def _write(self) -> None:
        try:
            self._send_on()
        except AnswerLost as error:
            self._end(error)

    def _read(self) -> None:
        try:
            self._call.receive()
            if self._told is None:  # a notice, or a farewell: the next call finds out
                return
            if self._sending:  # the server stops reading while nobody takes what it says
                self._send_on()
            row = self._call.answer()
        except (Refused, AnswerLost) as error:
            self._end(error)
            return
        if row is not None:
            self._end(row)

    def _end(self, how: "pq.abc.PGresult | Refused | AnswerLost") -> None:
        told, self._told = self._told, None
        if told is None:  # a socket at its end would be readable for ever
            self._loop.remove_reader(self._socket)
            return
        if self._late is not None:
            self._late.cancel()
        told(how)


def _refusal(result: pq.abc.PGresult) -> Refused:
    state = result.error_field(pq.DiagnosticField.SQLSTATE) or b"?????"
    primary = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.error_message
    return Refused(state.decode(), primary.decode(errors="replace").strip())
