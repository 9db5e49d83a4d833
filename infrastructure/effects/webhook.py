"""Signed webhooks by the Standard Webhooks specification (https://www.standardwebhooks.com).

`webhook-signature` is `v1,` and the base64 HMAC-SHA256 over `{id}.{timestamp}.{body}`.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from datetime import datetime

from application.steps import StepFailure

SECRET_PREFIX = "whsec_"  # noqa: S105 - the public mark of such secrets, not one
SECRET_BYTES_MIN = 24
SECRET_BYTES_MAX = 64
BODY_BYTES_MAX = 20_000


def webhook_headers(
    *, idempotency_key: str, sent_at: datetime, body: bytes, secrets: Iterable[str]
) -> dict[str, str]:
    """The three headers; one signature per secret, so that a receiver can change its own.

    Raises `StepFailure` with code `bad_webhook_secret` (permanent).
    """
    identifier = webhook_id(idempotency_key)
    timestamp = str(int(sent_at.timestamp()))
    signed = b".".join((identifier.encode(), timestamp.encode(), body))
    signatures = [
        "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        for key in map(_key, secrets)
    ]
    return {
        "webhook-id": identifier,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(signatures),
    }


def webhook_id(idempotency_key: str) -> str:
    """The key without dots, which separate what is signed; different keys stay different."""
    return idempotency_key.replace("%", "%25").replace(".", "%2E")


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX and secret.startswith(SECRET_PREFIX):
        return key
    raise StepFailure(
        "bad_webhook_secret",
        f"a webhook secret is {SECRET_PREFIX} and the base64 of {SECRET_BYTES_MIN} to "
        f"{SECRET_BYTES_MAX} random bytes",
        error_class="permanent",
    )
