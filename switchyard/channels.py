"""Ways to people: a webhook and e-mail, as the home's settings name them. Each sends one message or says why not.

Addresses and passwords are secrets: no error, log line or name holds one. Not here: what is sent when (``alerts``).
"""

from __future__ import annotations

import hashlib
import logging
import smtplib
import ssl
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from urllib.parse import urlsplit

import httpx

from switchyard.alerts import Channel, Message
from switchyard.errors import AlertError, SettingsError
from switchyard.settings import Settings


def channels_of(settings: Settings) -> list[Channel]:
    """The channels that are set; raises SettingsError if one is set by half."""
    channels: list[Channel] = []
    if settings.alert_webhook_url:
        channels.append(
            Webhook(settings.alert_webhook_url.get_secret_value(), settings.alert_timeout_s)
        )
    if settings.alert_smtp_host:
        channels.append(Email(settings))
    return channels


class Webhook:
    """POST of a JSON object whose ``text`` chat services show; the other fields are for programs."""

    def __init__(self, url: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(
                "setting 'alert_webhook_url' is no address; it begins with https://"
            )
        self.name = f"webhook at {parts.hostname}"
        self._url, self._timeout_s = url, timeout_s
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log the address

    def send(self, message: Message) -> None:
        """Raises AlertError unless the answer is a success; a redirect is none."""
        told = {"id": message.id, "incident": message.thread, "state": message.word,
                "title": message.title, "text": message.text}  # fmt: skip
        try:
            answer = httpx.post(
                self._url,
                json=told,
                timeout=self._timeout_s,
                headers={"idempotency-key": _short(message.id)},
            )
        except httpx.HTTPError as error:
            raise AlertError(f"{self.name} was not reached: {type(error).__name__}") from None
        if not answer.is_success:
            raise AlertError(f"{self.name} answered {answer.status_code}")


class Email:
    """One mail to all recipients, by the SMTP server of the settings."""

    def __init__(self, settings: Settings) -> None:
        for name in ("alert_email_from", "alert_email_to"):
            if not getattr(settings, name):
                raise SettingsError(f"setting 'alert_smtp_host' is set, so '{name}' is needed too")
        if settings.alert_smtp_user and settings.alert_smtp_security == "none":
            raise SettingsError(
                "setting 'alert_smtp_security' is 'none', which would send the password in the clear; "
                "set 'starttls' or 'tls', or no 'alert_smtp_user'"
            )
        self.name = f"e-mail by {settings.alert_smtp_host}"
        self._settings = settings

    def send(self, message: Message) -> None:
        """Raises AlertError if the server does not take it for every recipient."""
        try:
            with self._connected() as server:
                refused = server.send_message(self._mail(message))
        except smtplib.SMTPResponseException as error:
            raise AlertError(f"{self.name} answered {error.smtp_code}") from None
        except (OSError, smtplib.SMTPException) as error:
            raise AlertError(f"{self.name} was not reached: {type(error).__name__}") from None
        if refused:
            raise AlertError(f"{self.name} refused {', '.join(sorted(refused))}")

    def _connected(self) -> smtplib.SMTP:
        own = self._settings
        host, port, timeout_s = own.alert_smtp_host or "", own.alert_smtp_port, own.alert_timeout_s
        trust = ssl.create_default_context()
        if own.alert_smtp_security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=timeout_s, context=trust)
        else:
            server = smtplib.SMTP(host, port, timeout=timeout_s)
        try:
            if own.alert_smtp_security == "starttls":
                server.starttls(context=trust)
            if own.alert_smtp_user:
                password = own.alert_smtp_password
                server.login(own.alert_smtp_user, password.get_secret_value() if password else "")
        except BaseException:
            server.close()
            raise
        return server

    def _mail(self, message: Message) -> EmailMessage:
        sender = Address(addr_spec=self._settings.alert_email_from or "")
        mail = EmailMessage(SMTP)
        mail["Subject"] = " ".join(message.title.split())
        mail["From"] = sender
        mail["To"] = [Address(addr_spec=to) for to in self._settings.alert_email_to]
        mail["Message-ID"] = f"<{_short(message.id)}@{sender.domain}>"
        mail["References"] = f"<{_short(message.thread)}@{sender.domain}>"
        mail.set_content(message.text)
        return mail


def _short(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=12).hexdigest()
