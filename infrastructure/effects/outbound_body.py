"""Reads an answer's body without ever holding more than its limit, packed or unpacked."""

import zlib

import httpx2

from application.steps import StepFailure


async def read_body(response: httpx2.Response, *, bytes_max: int, shown: str) -> bytes:
    """The whole body, unpacked if it is gzip.

    Raises `StepFailure` (permanent): `body_too_large` above `bytes_max` bytes on the wire or
    unpacked, `bad_content_encoding` for a packing that was not offered or is broken. `shown`
    names the URL in the message.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("gzip", "x-gzip", "identity", ""):
        raise _bad_encoding(shown, f"its body is packed as {encoding[:40]!r}, gzip was offered")
    wire = bytearray()
    unpacked = _Gunzip(bytes_max) if "gzip" in encoding else None
    async for chunk in response.aiter_raw():
        wire += chunk
        if unpacked is not None:
            try:
                unpacked.feed(chunk)
            except zlib.error as error:
                raise _bad_encoding(shown, f"its gzip body is broken: {error}") from error
        if max(len(wire), len(unpacked.content) if unpacked else 0) > bytes_max:
            raise StepFailure(
                "body_too_large",
                f"{shown} answered with more than {bytes_max} bytes; ask it for less, page by page",
                error_class="permanent",
            )
    if unpacked is None:
        return bytes(wire)
    if wire and not unpacked.is_complete:
        raise _bad_encoding(shown, "its gzip body ends too early")
    return bytes(unpacked.content)


class _Gunzip:
    """Unpacks gzip members one after the other, at most one byte beyond the limit.

    The library's own decoder unpacks a chunk whole, and a chunk may be a bomb.
    """

    def __init__(self, bytes_max: int) -> None:
        self.content = bytearray()
        self._bytes_max = bytes_max
        self._member = zlib.decompressobj(wbits=31)

    @property
    def is_complete(self) -> bool:
        return self._member.eof

    def feed(self, data: bytes) -> None:
        while data and len(self.content) <= self._bytes_max:
            if self._member.eof:
                self._member = zlib.decompressobj(wbits=31)
            room = self._bytes_max + 1 - len(self.content)
            self.content += self._member.decompress(data, room)
            data = self._member.unused_data if self._member.eof else self._member.unconsumed_tail


def _bad_encoding(shown: str, why: str) -> StepFailure:
    return StepFailure("bad_content_encoding", f"{shown}: {why}", error_class="permanent")
