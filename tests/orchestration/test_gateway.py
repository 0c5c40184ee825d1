"""The gateway: it switches without losing a request, ends TLS, outlives a kill, and says so when nobody answers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from orchestration.gateway import Gateway, free_port, reaches_service
from orchestration.process import process_of
from switchyard.errors import ServiceError, SettingsError
from switchyard.settings import Settings, load_settings
from tests.homes import free_port as some_port

Open = Callable[..., tuple[Gateway, Settings]]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Makes gateways in homes of their own; they are stopped at the end."""
    gateways: list[Gateway] = []

    def make(**overrides: object) -> tuple[Gateway, Settings]:
        settings = load_settings(home=tmp_path / "home", **({"port": some_port()} | overrides))
        gateways.append(Gateway(settings))
        return gateways[-1], settings

    yield make
    for gateway in gateways:
        gateway.stop()


@contextmanager
def answering(word: str) -> Iterator[int]:
    """A service that answers every request with ``word``; its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(word)))
            self.end_headers()
            self.wfile.write(word.encode())

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_kept_connection_is_led_elsewhere_between_two_requests(opened: Open) -> None:
    gateway, _ = opened()
    with answering("one") as one, answering("two") as two, ExitStack() as clients:
        gateway.point(one)
        client = clients.enter_context(httpx.Client(base_url=str(gateway.url)))
        said = [client.get("/").text]

        for port in (two, one, two):
            gateway.point(port)
            said.append(client.get("/").text)

        assert said == ["one", "two", "one", "two"]
        assert reaches_service(gateway) == "ready"


def test_it_names_no_server_and_answers_in_the_services_shape_when_there_is_none(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestration.gateway.RETRY_S", 0.1)
    gateway, _ = opened()
    with answering("one") as port:
        gateway.point(port)
        answered = httpx.get(f"{gateway.url}/")

    gateway.point(some_port())
    refused = httpx.get(f"{gateway.url}/v1/predict")

    assert not {"server", "via"} & set(answered.headers)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "service_unavailable"
    assert refused.headers["retry-after"] == "1"
    assert not {"server", "via"} & set(refused.headers)
    assert reaches_service(gateway) == "not ready (503)"


def test_it_ends_tls_by_a_ca_of_the_homes_own(opened: Open) -> None:
    gateway, settings = opened(tls=True)
    with answering("one") as port:
        gateway.point(port)

        assert gateway.url == f"https://127.0.0.1:{settings.port}"
        assert httpx.get(str(gateway.url), verify=gateway.trust).text == "one"
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(str(gateway.url))


def test_killed_it_is_started_again_and_stopped_it_is_not(opened: Open) -> None:
    gateway, settings = opened()
    with answering("one") as port:
        gateway.point(port)
        url = gateway.url
        process = process_of(["--config", str(settings.home / "gateway" / "caddy.json")])
        assert process is not None
        process.kill()
        process.wait(10)
        assert reaches_service(gateway) == "the gateway is not running"

        gateway.keep()

        assert gateway.url == url
        assert httpx.get(str(url)).text == "one"
        assert gateway.stop()
        gateway.keep()
        assert not gateway.running()


def test_stopped_and_started_again_it_stays_where_it_was_and_is_left_alone(opened: Open) -> None:
    gateway, settings = opened()
    with answering("one") as port:
        gateway.point(port)
        url = gateway.url
        gateway.stop()

        gateway.point(port)
        again = process_of(["--config", str(settings.home / "gateway" / "caddy.json")])
        gateway.point(port)

        assert gateway.url == url
        assert process_of(["--config", str(settings.home / "gateway" / "caddy.json")]) == again


def test_where_its_port_is_taken_it_listens_on_the_next_and_stays_there(opened: Open) -> None:
    with answering("a stranger") as taken, answering("one") as port:
        gateway, _ = opened(port=taken)
        gateway.point(port)
        first = gateway.url
        gateway.start()

    assert first == gateway.url
    assert first != f"http://127.0.0.1:{taken}"


def test_an_open_address_without_keys_is_refused(opened: Open) -> None:
    gateway, _ = opened(host="0.0.0.0")

    with pytest.raises(SettingsError, match="without API keys"):
        gateway.start()


def test_a_certificate_without_its_key_is_refused(opened: Open, tmp_path: Path) -> None:
    gateway, _ = opened(tls=True, tls_certificate=tmp_path / "cert.pem")

    with pytest.raises(SettingsError, match="go together"):
        gateway.start()


def test_what_caddy_says_is_told_when_it_does_not_start(opened: Open, tmp_path: Path) -> None:
    nothing = dict.fromkeys(("tls_certificate", "tls_key"), tmp_path / "missing.pem")
    gateway, _ = opened(tls=True, **nothing)

    with pytest.raises(ServiceError, match=r"missing\.pem: no such file"):
        gateway.start()


def test_a_free_port_is_the_wanted_one_where_it_is_free() -> None:
    wanted = some_port()

    assert free_port(wanted) == wanted
