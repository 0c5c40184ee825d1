"""Ways to people: a webhook and e-mail, as the home's settings name them. Each sends one message or says why not.

Addresses and passwords are secrets: no error, log line or name holds one. Not here: what is sent when (``alerts``).
"""

from __future__ import annotations

import hashlib
import logging
import smtplib
import ssl
from contextlib import suppress
from email.errors import MessageError
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
        self.name = f"webhook at {_host_of(url)}"
        self._url, self._timeout_s = url, timeout_s
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log the address

    def send(self, message: Message) -> None:
        """Raises AlertError unless the answer is a success; a redirect is none. What it answers besides is not read."""
        told = {"id": message.id, "incident": message.thread, "state": message.word,
                "title": message.title, "text": message.text}  # fmt: skip
        try:
            with httpx.stream(
                "POST",
                self._url,
                json=told,
                timeout=self._timeout_s,
                headers={"idempotency-key": _short(message.id)},
            ) as answer:
                pass
        except (httpx.HTTPError, UnicodeError) as error:  # a host that can't be looked up
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
        self._sender = _address("alert_email_from", settings.alert_email_from or "")
        self._to = [_address("alert_email_to", to) for to in settings.alert_email_to]

    def send(self, message: Message) -> None:
        """Raises AlertError if the server does not take it for every recipient."""
        try:
            with self._connected() as server:
                refused = server.send_message(self._mail(message))
        except smtplib.SMTPResponseException as error:
            raise AlertError(f"{self.name} answered {error.smtp_code}") from None
        except (OSError, smtplib.SMTPException, UnicodeError) as error:  # a password beyond ASCII
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
        mail = EmailMessage(SMTP)
        mail["Subject"] = " ".join(message.title.split())
        mail["From"] = self._sender
        mail["To"] = self._to
        mail["Message-ID"] = f"<{_short(message.id)}@{self._sender.domain}>"
        mail["References"] = f"<{_short(message.thread)}@{self._sender.domain}>"
        mail.set_content(message.text)
        return mail


def _host_of(url: str) -> str:
    """Of a webhook's address. Raises SettingsError without the address if it is none."""
    with suppress(ValueError, httpx.InvalidURL):
        address = httpx.URL(url)
        if address.scheme in ("http", "https") and urlsplit(url).port != 0 and address.host:
            return address.host
    raise SettingsError("setting 'alert_webhook_url' is no address; it begins with https://")


def _address(setting: str, told: str) -> Address:
    try:
        return Address(addr_spec=told)
    except (ValueError, MessageError, AttributeError):  # the last for a bracket that stays open
        raise SettingsError(
            f"setting '{setting}' holds {told!r}, which is no mail address; it must be one, such as ann@bank.com"
        ) from None


def _short(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=12).hexdigest()
