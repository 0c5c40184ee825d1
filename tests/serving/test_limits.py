"""Limits: a rate over all processes, room in one, and what a refusal says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from switchyard.errors import RequestError, ServiceError
from switchyard.serving import limits
from switchyard.serving.limits import PROCESSES, RateLimit, Room


class Clock:
    """The wall clock, moved by hand."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def admitted(limit: RateLimit, key: int, times: int) -> int:
    count = 0
    for _ in range(times):
        try:
            limit.admit(key)
        except RequestError:
            break
        count += 1
    return count


def test_a_key_is_admitted_up_to_its_rate_and_the_refusal_says_when_to_come_back(
    tmp_path: Path, clock: Clock
) -> None:
    with RateLimit(tmp_path, 5, 1, clock) as limit:
        assert admitted(limit, 0, 20) == 5

        with pytest.raises(RequestError, match="more than 5 requests a second") as caught:
            limit.admit(0)

    assert (caught.value.status, caught.value.retry_after_s) == (429, 1)


def test_keys_have_rates_of_their_own(tmp_path: Path, clock: Clock) -> None:
    with RateLimit(tmp_path, 5, 2, clock) as limit:
        assert admitted(limit, 0, 20) == 5

        assert admitted(limit, 1, 20) == 5


def test_two_processes_share_a_rate(tmp_path: Path, clock: Clock) -> None:
    with RateLimit(tmp_path, 10, 1, clock) as one, RateLimit(tmp_path, 10, 1, clock) as other:
        assert admitted(one, 0, 6) == 6

        assert admitted(other, 0, 20) == 4
        assert admitted(one, 0, 1) == 0


def test_no_second_holds_more_than_the_rate_wherever_it_begins(
    tmp_path: Path, clock: Clock
) -> None:
    with RateLimit(tmp_path, 100, 1, clock) as limit:
        clock.now = 1_000.9
        assert admitted(limit, 0, 1_000) == 100
        clock.now = 1_001.1

        soon = admitted(limit, 0, 1_000)
        clock.now = 1_003.0
        later = admitted(limit, 0, 1_000)

    assert soon <= 11
    assert later == 100


def test_a_bulk_weighs_what_it_holds_and_one_larger_than_the_rate_passes_alone(
    tmp_path: Path, clock: Clock
) -> None:
    with RateLimit(tmp_path, 50, 1, clock) as limit:
        limit.admit(0, 1_000)

        with pytest.raises(RequestError):
            limit.admit(0)


def test_a_process_that_ended_gives_its_row_back(tmp_path: Path) -> None:
    holder = (
        "import sys, time; from pathlib import Path; from switchyard.serving.limits import RateLimit; "
        f"limit = RateLimit(Path({str(tmp_path)!r}), 3, 1, time.time); print('held', flush=True); sys.stdin.read()"
    )
    held = [RateLimit(tmp_path, 3, 1, Clock()) for _ in range(PROCESSES - 1)]
    other = subprocess.Popen(
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdin is not None
    assert other.stdout is not None
    with other.stdin, other.stdout:
        other.stdout.readline()
        with pytest.raises(ServiceError, match="count in"):
            RateLimit(tmp_path, 3, 1, Clock())

        other.kill()
        other.wait()
        RateLimit(tmp_path, 3, 1, Clock()).close()
    for limit in held:
        limit.close()


def test_the_rate_is_off_on_the_loopback_without_keys_and_on_with_them() -> None:
    assert limits.rate_for(None, 0) == 0
    assert limits.rate_for(None, 2) == limits.DEFAULT_RATE_PER_S
    assert limits.rate_for(0, 2) == 0


def test_a_full_room_refuses_at_once_and_has_place_again_when_somebody_left() -> None:
    room = Room(most_waiting=2)
    room.enter()
    room.enter()

    with pytest.raises(RequestError, match="2 requests are waiting") as caught:
        room.enter()

    assert (caught.value.status, caught.value.retry_after_s) == (503, 1)
    room.leave()
    room.enter()


def test_a_room_is_full_by_bytes_as_well_but_takes_one_body_of_any_size() -> None:
    room = Room(most_waiting=100, most_bytes=1_000)
    room.hold(5_000)

    with pytest.raises(RequestError, match="bodies of 5000 bytes") as caught:
        room.hold(1)

    assert (caught.value.status, caught.value.retry_after_s) == (503, 1)
    room.free(5_000)
    room.hold(999)
    assert room.held_bytes == 999
