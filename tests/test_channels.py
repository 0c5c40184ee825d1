"""Both channels against real servers: what arrives, what is refused, and that no secret is ever told."""

from __future__ import annotations

import logging
import smtplib
from collections.abc import Iterator
from typing import Any

import pytest

from switchyard.alerts import Message
from switchyard.channels import channels_of
from switchyard.errors import AlertError, SettingsError
from switchyard.settings import load_settings
from tests.channels import Hook, Mailbox, hook, mailbox
from tests.homes import free_port, own_environment

MESSAGE = Message("k 1 failed", "k", "failed", "[switchyard] drift: moved: failed", "ä moved\n.\nx")
MAIL = {
    "alert_smtp_host": "127.0.0.1",
    "alert_smtp_security": "none",
    "alert_email_from": "switchyard@bank.test",
    "alert_email_to": "ann@bank.test, bob@bank.test",
}


@pytest.fixture
def hooked() -> Iterator[Hook]:
    with hook() as listening:
        yield listening


@pytest.fixture(scope="module")
def mails() -> Iterator[Mailbox]:
    with mailbox() as listening:
        yield listening


def test_no_channel_is_set_by_default() -> None:
    with own_environment():
        assert channels_of(load_settings()) == []


def test_a_webhook_gets_json_with_a_text_and_the_same_key_for_the_same_message(
    hooked: Hook,
) -> None:
    (channel,) = channels_of(load_settings(alert_webhook_url=hooked.url))

    channel.send(MESSAGE)
    channel.send(MESSAGE)

    assert hooked.got[0] == {
        "id": "k 1 failed", "incident": "k", "state": "failed",
        "title": MESSAGE.title, "text": MESSAGE.text,
    }  # fmt: skip
    assert len(set(hooked.keys)) == 1


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_does_not_take_it_is_an_error(hooked: Hook, status: int) -> None:
    hooked.status = status
    (channel,) = channels_of(load_settings(alert_webhook_url=hooked.url))

    with pytest.raises(AlertError, match=f"webhook at 127.0.0.1 answered {status}"):
        channel.send(MESSAGE)


def test_a_host_that_no_name_server_knows_is_an_error_in_words() -> None:
    (channel,) = channels_of(load_settings(alert_webhook_url="https://a..b/secret"))

    with pytest.raises(AlertError, match=r"a\.\.b was not reached: UnicodeError"):
        channel.send(MESSAGE)


def test_an_answer_that_never_ends_holds_nobody_up(hooked: Hook) -> None:
    hooked.endless = True
    (channel,) = channels_of(load_settings(alert_webhook_url=hooked.url))

    channel.send(MESSAGE)

    assert len(hooked.got) == 1


def test_a_mail_reaches_every_recipient_as_it_was_written(mails: Mailbox) -> None:
    (channel,) = channels_of(load_settings(**MAIL, alert_smtp_port=mails.port))

    channel.send(MESSAGE)

    (mail,) = mails.mails
    assert mail["Subject"] == MESSAGE.title
    assert mail["To"] == "ann@bank.test, bob@bank.test"
    assert mail["Message-ID"].endswith("@bank.test>")
    body = mail.get_payload(decode=True)
    assert isinstance(body, bytes)
    assert body.decode().splitlines() == ["ä moved", ".", "x"]


def test_a_mail_that_a_recipient_does_not_get_is_an_error(mails: Mailbox) -> None:
    told = MAIL | {"alert_email_to": "ann@bank.test,nobody@bank.test"}
    (channel,) = channels_of(load_settings(**told, alert_smtp_port=mails.port))

    with pytest.raises(AlertError, match=r"refused nobody@bank\.test"):
        channel.send(MESSAGE)


def test_what_does_not_listen_is_named_without_its_secrets(
    caplog: pytest.LogCaptureFixture, hooked: Hook
) -> None:
    caplog.set_level(logging.DEBUG)
    dead = {"alert_webhook_url": f"http://127.0.0.1:{free_port()}/secret-path"}
    login = {"alert_smtp_user": "ann", "alert_smtp_password": "secret-word",
             "alert_smtp_security": "starttls", "alert_smtp_port": free_port()}  # fmt: skip
    settings = load_settings(**(MAIL | dead | login))

    errors = []
    for channel in channels_of(settings):
        with pytest.raises(AlertError, match="was not reached: Connect") as error:
            channel.send(MESSAGE)
        errors.append(str(error.value))
    (well,) = channels_of(load_settings(alert_webhook_url=hooked.url))
    well.send(MESSAGE)

    assert len(errors) == 2
    told = f"{errors} {caplog.text} {settings!r} {settings.model_dump_json()}"
    assert "secret" not in told


def test_a_password_beyond_ascii_is_an_error_in_words(
    mails: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    login = {"alert_smtp_user": "ann", "alert_smtp_password": "süß", "alert_smtp_port": mails.port}
    own = load_settings(**(MAIL | login | {"alert_smtp_security": "tls"}))
    (channel,) = channels_of(own)
    monkeypatch.setattr("smtplib.SMTP_SSL", _TakesPasswords)

    with pytest.raises(AlertError, match="was not reached: UnicodeEncodeError"):
        channel.send(MESSAGE)


class _TakesPasswords(smtplib.SMTP):
    """A server that takes passwords, as one with TLS does, without it."""

    def __init__(self, host: str, port: int, *, timeout: float, context: object) -> None:
        super().__init__(host, port, timeout=timeout)

    def ehlo(self, name: str = "") -> tuple[int, bytes]:
        answer = super().ehlo(name)
        self.esmtp_features["auth"] = "PLAIN"
        return answer


def test_a_server_without_tls_is_not_told_the_password(mails: Mailbox) -> None:
    login = {"alert_smtp_user": "ann", "alert_smtp_password": "w", "alert_smtp_port": mails.port}
    before = len(mails.mails)
    (channel,) = channels_of(load_settings(**(MAIL | login | {"alert_smtp_security": "starttls"})))

    with pytest.raises(AlertError, match="SMTPNotSupportedError"):
        channel.send(MESSAGE)

    assert len(mails.mails) == before


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"alert_smtp_host": "mail.bank.test"}, "'alert_email_from' is needed too"),
        (MAIL | {"alert_email_to": ""}, "'alert_email_to' is needed too"),
        (MAIL | {"alert_smtp_user": "ann"}, "send the password in the clear"),
        ({"alert_webhook_url": "hooks.secret.test/x"}, "is no address"),
        (MAIL | {"alert_email_to": "ann"}, "alert_email_to.*pattern"),
        (MAIL | {"alert_email_to": "<ann@bank.test>"}, "'alert_email_to' holds '<ann@bank.test>'"),
        (MAIL | {"alert_email_from": "a;b@bank.test"}, "'alert_email_from' holds"),
        ({"alert_webhook_url": "https://host:secret/x"}, "is no address"),
        ({"alert_webhook_url": "https://[::1/secret"}, "is no address"),
        ({"alert_webhook_url": 7}, "'alert_webhook_url' is not one that is shown"),
    ],
)
def test_a_channel_that_is_set_by_half_is_refused_in_words(
    given: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError, match=words) as error:
        channels_of(load_settings(**given))

    assert "secret" not in str(error.value)
