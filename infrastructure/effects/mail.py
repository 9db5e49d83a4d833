"""Sends one e-mail through the operator's SMTP server."""

import hashlib
import smtplib
import ssl
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Literal

from application.steps import StepFailure
from infrastructure.effects.blocking_calls import BlockingCalls


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """Where mail goes; chosen by the operator, so the outbound guard does not apply.

    `security` is `starttls`, `tls` (from the first byte) or `none`; `sender` is the From address.
    """

    host: str
    port: int
    sender: str
    user: str = ""
    password: str = field(default="", repr=False)
    security: Literal["starttls", "tls", "none"] = "starttls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    recipient: str
    subject: str
    text: str
    sent_at: datetime
    idempotency_key: str


async def send_mail(
    mail: Mail, server: MailServer, *, blocking: BlockingCalls, timeout_seconds: float
) -> None:
    """Hands a mail to the server. A repeat has the same Message-ID, so receivers can drop it.

    Raises `StepFailure`: `bad_mail` and `mail_refused` (permanent, or transient for a 4xx reply),
    `mail_not_sent` (transient). The time limit is per network operation; the caller sets the
    total one.
    """
    message = _message(mail, server)
    try:
        await blocking.run(lambda: _deliver(message, server, timeout_seconds))
    except smtplib.SMTPRecipientsRefused as error:
        code, reply = next(iter(error.recipients.values()))
        raise _refusal(code, reply) from error
    except smtplib.SMTPResponseException as error:
        raise _refusal(error.smtp_code, error.smtp_error) from error
    except (smtplib.SMTPException, OSError) as error:
        raise StepFailure(
            "mail_not_sent",
            f"the mail server {server.host}:{server.port}: {error or type(error).__name__}",
            error_class="timeout" if isinstance(error, TimeoutError) else "transient",
        ) from error


def _message(mail: Mail, server: MailServer) -> EmailMessage:
    digest = hashlib.sha256(mail.idempotency_key.encode()).hexdigest()[:32]
    message = EmailMessage(policy=SMTP)
    try:
        message["From"] = server.sender
        message["To"] = mail.recipient
        message["Subject"] = mail.subject
        message["Date"] = format_datetime(mail.sent_at)
        message["Message-ID"] = f"<{digest}@{server.sender.rpartition('@')[2] or 'flowledger'}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(mail.text)
    except ValueError as error:  # the library refuses line breaks in headers
        raise StepFailure("bad_mail", f"the mail: {error}", error_class="permanent") from error
    return message


def _deliver(message: EmailMessage, server: MailServer, timeout_seconds: float) -> None:
    if server.security == "tls":
        connection: smtplib.SMTP = smtplib.SMTP_SSL(
            server.host, server.port, timeout=timeout_seconds, context=ssl.create_default_context()
        )
    else:
        connection = smtplib.SMTP(server.host, server.port, timeout=timeout_seconds)
    with connection:
        if server.security == "starttls":
            connection.starttls(context=ssl.create_default_context())
        if server.user:
            connection.login(server.user, server.password)
        connection.send_message(message)


def _refusal(code: int, reply: bytes | str) -> StepFailure:
    text = reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply
    return StepFailure(
        "mail_refused",
        f"the mail server refused with {code} {text[:200]}",
        error_class="transient" if 400 <= code < 500 else "permanent",
    )
