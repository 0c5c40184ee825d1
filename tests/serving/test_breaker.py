"""When a breaker lets something be tried, on a clock that stands still until it is told."""

from __future__ import annotations

import pytest

from switchyard.serving.breaker import FIRST_PAUSE_S, JITTER, LONGEST_PAUSE_S, Breaker


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("it", clock=clock, random=lambda: 0.5)  # in the middle: no jitter


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failed()


def test_it_opens_at_the_fifth_failure_in_a_row(breaker: Breaker) -> None:
    fail(breaker, 4)
    before = breaker.allows()
    breaker.failed()

    assert (before, breaker.allows(), breaker.state, breaker.code) == (True, False, "open", 2)


def test_a_success_between_starts_the_count_again(breaker: Breaker) -> None:
    fail(breaker, 4)
    breaker.succeeded()
    fail(breaker, 4)

    assert (breaker.allows(), breaker.state, breaker.code) == (True, "closed", 0)


def test_after_the_pause_one_probe_goes_through_and_no_second(
    breaker: Breaker, clock: Clock
) -> None:
    fail(breaker, 5)
    clock.now_s += FIRST_PAUSE_S - 0.001
    too_early = breaker.allows()
    clock.now_s += 0.002

    assert (too_early, breaker.allows(), breaker.allows()) == (False, True, False)
    assert (breaker.state, breaker.code) == ("half_open", 1)


def test_a_probe_that_succeeds_closes_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 5)
    clock.now_s += 1
    breaker.allows()

    breaker.succeeded()

    assert (breaker.allows(), breaker.allows(), breaker.state) == (True, True, "closed")


def test_each_probe_that_fails_doubles_the_pause_up_to_the_longest(
    breaker: Breaker, clock: Clock
) -> None:
    fail(breaker, 5)
    pauses = []
    for _ in range(7):
        began = clock.now_s
        while not breaker.allows():
            clock.now_s += 0.01
        pauses.append(clock.now_s - began)
        breaker.failed()

    doubled = [min(FIRST_PAUSE_S * 2**n, LONGEST_PAUSE_S) for n in range(7)]
    assert pauses == pytest.approx(doubled, abs=0.011)
    assert breaker.state == "open"


def test_after_it_worked_again_the_first_pause_is_short_again(
    breaker: Breaker, clock: Clock
) -> None:
    for _ in range(6):
        fail(breaker, 5)
        clock.now_s += LONGEST_PAUSE_S
        assert breaker.allows()
    breaker.succeeded()
    fail(breaker, 5)

    clock.now_s += FIRST_PAUSE_S + 0.001

    assert breaker.allows()


def test_a_probe_nobody_heard_of_again_is_followed_by_another_after_a_pause(
    breaker: Breaker, clock: Clock
) -> None:
    fail(breaker, 5)
    clock.now_s += 1
    breaker.allows()

    clock.now_s += 1

    assert breaker.allows()


@pytest.mark.parametrize(("drawn", "share"), [(0.0, 1 - JITTER), (1.0, 1 + JITTER)])
def test_pauses_differ_between_workers(clock: Clock, drawn: float, share: float) -> None:
    breaker = Breaker("it", clock=clock, random=lambda: drawn)
    fail(breaker, 5)

    clock.now_s += share * FIRST_PAUSE_S - 0.001
    early = breaker.allows()
    clock.now_s += 0.002

    assert (early, breaker.allows()) == (False, True)
