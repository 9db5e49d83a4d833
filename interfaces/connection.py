"""One connection of a client, below the application: what uvicorn's own leaves open."""

import re
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES_MAX: Final = 524_288
"""Of a request's line and headers together, as far as they are not complete."""
_UPGRADE: Final = re.compile(rb"\r\nupgrade[ \t]*:", re.IGNORECASE)


class Connection(HttpToolsProtocol):
    """uvicorn's, with an end to headers, and without upgrades.

    Its parser copies what it has of a header with each packet, so that tens of megabytes keep the
    whole process busy for seconds. And it gives up a request at the end of headers that offer
    another protocol, as Java's HttpClient does with `Upgrade: h2c`: the body would be lost, and
    what of it comes later be read as another request. A server may pass such an offer over
    (RFC 9110, 7.8).
    """

    _head_bytes = 0
    _head_open = False
    _between = True

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes, self._head_open, self._between = 0, True, False

    def on_headers_complete(self) -> None:
        self._head_open = False
        super().on_headers_complete()
        if self.parser.should_upgrade():  # an offer that came in pieces, so its body is lost
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._between = True
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if (self._between or self._head_open) and b"pgrade" in data.lower():
            data = _without_offer(data)
        super().data_received(data)
        if self._head_open:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self.send_400_response(f"The headers have more than {HEAD_BYTES_MAX} bytes.")


def _without_offer(data: bytes) -> bytes:
    """A packet with (a part of) a head, whose `Upgrade` is called something else."""
    head, end, rest = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-upgrade:", head) + end + rest
