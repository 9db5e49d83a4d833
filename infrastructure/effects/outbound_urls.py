"""Which URLs may be tried at all, and how they are shown."""

import httpx2

from application.steps import StepFailure

URL_LENGTH_MAX = 8_192


def checked_url(text: str) -> httpx2.URL:
    """Parses an absolute `http` or `https` URL; raises `StepFailure` with code `bad_url`."""
    mistake = mistake_of_url(text)
    if mistake is not None:
        raise StepFailure("bad_url", f"{without_query(text)}: {mistake}", error_class="permanent")
    return httpx2.URL(text)


def mistake_of_url(text: str) -> str | None:
    """What is wrong with the form of a URL, in words; None when it may be tried."""
    if len(text) > URL_LENGTH_MAX:
        return f"a URL has at most {URL_LENGTH_MAX} characters"
    # Parsers disagree about these, and a guard must not read another host than the connection.
    if any(ord(character) <= 0x20 or character in "\\\x7f" for character in text):
        return "blanks, control characters and backslashes are not allowed in a URL"
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL as error:
        return str(error)
    if url.scheme not in ("http", "https"):
        return "only http and https are called"
    if url.userinfo:
        return "put credentials into a header, not before the host"
    if not url.host:
        return "the host is missing"
    if url.port is not None and not 0 < url.port < 65536:
        return "the port must be between 1 and 65535"
    return None


def without_query(url: str) -> str:
    """The URL for messages: no query, fragment or user information, at most 200 characters."""
    plain = url.split("?", 1)[0].split("#", 1)[0]
    scheme, separator, rest = plain.partition("://")
    host, slash, path = rest.partition("/")
    shown = f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}" if separator else plain
    return shown if len(shown) <= 200 else shown[:199] + "…"
