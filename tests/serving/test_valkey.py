"""The embedded server: started once however many ask, found again, its data outliving a kill."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from switchyard.errors import ServiceError, SettingsError
from switchyard.serving import valkey
from switchyard.settings import load_settings


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / 'ho me\'s "home"'
    yield home
    valkey.stop(home)


def pid_of(home: Path) -> int:
    return int((home / "valkey" / "valkey.pid").read_text())


def client_of(home: Path) -> redis.Redis:
    return redis.Redis.from_url(valkey.start(home))


def start_and_report(home: Path, answers: multiprocessing.SimpleQueue[tuple[str, int]]) -> None:
    answers.put((valkey.start(home), pid_of(home)))


def test_a_started_server_runs_and_a_stopped_one_does_not(home: Path) -> None:
    before = valkey.running(home)
    url = valkey.start(home)
    during = valkey.running(home)
    stopped = valkey.stop(home)

    assert redis.connection.parse_url(url)["path"] == str(home / "valkey" / "valkey.sock")
    assert (before, during, stopped, valkey.running(home)) == (False, True, True, False)
    assert not valkey.stop(home)


def test_starting_again_finds_the_running_server(home: Path) -> None:
    first = valkey.start(home), pid_of(home)

    second = valkey.start(home), pid_of(home)

    assert first == second


def test_processes_that_start_at_the_same_moment_share_one_server(home: Path) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    processes = [context.Process(target=start_and_report, args=(home, answers)) for _ in range(3)]

    for process in processes:
        process.start()
    for process in processes:
        process.join(30)

    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len({answers.get() for _ in processes}) == 1


def test_data_written_a_second_ago_outlives_a_kill(home: Path) -> None:
    client_of(home).set("a", "kept")
    time.sleep(1.2)

    os.kill(pid_of(home), signal.SIGKILL)

    assert client_of(home).get("a") == b"kept"


def test_data_outlives_stop_and_start(home: Path) -> None:
    client_of(home).set("a", "kept")

    valkey.stop(home)

    assert client_of(home).get("a") == b"kept"


def test_a_home_deep_down_gets_a_socket_that_fits(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*["a-long-folder-name"] * 8)

    path = valkey.socket_path(deep)
    with client_of(deep) as client:
        answers = client.ping()
    valkey.stop(deep)

    assert len(os.fsencode(path)) <= valkey.SOCKET_PATH_BYTES
    assert path != valkey.socket_path(deep / "other")
    assert answers
    assert not path.exists()


def test_two_homes_have_two_servers(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    client_of(home).set("a", "here")

    there = client_of(other).get("a")
    valkey.stop(other)

    assert there is None
    assert valkey.running(home)


def test_a_pid_file_of_another_process_is_not_believed(home: Path) -> None:
    (home / "valkey").mkdir(parents=True)
    (home / "valkey" / "valkey.pid").write_text(str(os.getpid()))

    stopped = valkey.stop(home)
    started = valkey.start(home)

    assert not stopped
    assert started
    assert pid_of(home) != os.getpid()


def test_a_frozen_server_is_named_and_not_doubled(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    valkey.start(home)
    monkeypatch.setattr(valkey, "START_SECONDS", 0.1)
    monkeypatch.setattr(valkey, "STOP_SECONDS", 0.5)
    os.kill(pid_of(home), signal.SIGSTOP)

    with pytest.raises(ServiceError, match=f"process {pid_of(home)} is silent"):
        valkey.start(home)

    assert valkey.stop(home)


def test_settings_without_a_url_mean_the_embedded_server(home: Path) -> None:
    settings = load_settings(home=home)

    address = valkey.address_of(settings)

    assert valkey.running(settings.home)
    assert redis.Redis.from_url(address.url).ping()
    assert address.feast.startswith("localhost:1,unix_socket_path=")


def test_the_exported_url_of_an_embedded_server_starts_it_again(home: Path) -> None:
    exported = valkey.start(home)
    valkey.stop(home)

    address = valkey.address_of(load_settings(home=home, redis_url=exported))

    assert address.url == exported
    assert valkey.running(home)


def test_settings_with_a_url_start_nothing(home: Path) -> None:
    settings = load_settings(home=home, redis_url="redis://user:se%2Ccret@store.example:6380/3")

    with pytest.raises(SettingsError, match="comma"):
        valkey.address_of(settings)

    assert not valkey.running(home)


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("redis://store.example", "store.example:6379"),
        ("redis://:1e5@store.example:1/0", 'store.example:1,db=0,password="1e5"'),
        ("rediss://u:p@h:2", 'h:2,password="p",ssl=true,username="u"'),
    ],
)
def test_a_url_is_said_in_feasts_form(url: str, form: str) -> None:
    assert valkey.feast_address(url) == form


def test_what_is_no_url_is_refused() -> None:
    with pytest.raises(SettingsError, match="redis_url"):
        valkey.feast_address("store.example:6379")
