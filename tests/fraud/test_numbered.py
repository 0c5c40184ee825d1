"""What a store held, carried on and thinned: whoever asks later sees what a store that kept all would show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from switchyard.errors import JournalError
from switchyard.fraud.events import CAPACITY, EVENT, Events
from switchyard.fraud.numbered import (
    REMEMBERED_US,
    Appended,
    Numbered,
    carried_on,
    nothing,
    numbered_in,
    of_snapshot,
)


def make_appended(key: str, times: list[int], first_number: int = 1) -> Appended:
    """Events of one key at these times, numbered in the order given."""
    events = np.zeros(len(times), EVENT)
    events["event_timestamp"] = times
    events["event_id"] = np.arange(len(times)) + 1_000 * first_number
    events["seq"] = np.arange(len(times)) + first_number
    return Appended([key] * len(times), events, np.zeros(len(times), np.int64))


def shown(events: Events, seen: int) -> list[int]:
    """Ids of what a store shows that was asked when ``seen`` was its newest number."""
    there = events[events["seq"] <= seen]
    order = np.lexsort((there["event_id"], there["event_timestamp"]))
    return there["event_id"][order][-CAPACITY:].tolist()


def test_what_is_thinned_shows_the_same_to_whoever_has_seen_enough() -> None:
    rng = np.random.default_rng(3)
    every = make_appended("c1", rng.integers(0, 10**6, 900).tolist())
    held, at = nothing(), 0
    for upto, seen in ((300, 250), (620, 600), (900, 880)):
        more = Appended(every.keys[at:upto], every.events[at:upto], every.received[at:upto])
        held, at = carried_on(held, more, {"c1": seen}), upto

        for asked in (seen, seen + 11, upto):
            assert shown(held.events, asked) == shown(every.events, asked)
        assert len(held.events) <= CAPACITY + upto - seen
        assert (held.exact_from.tolist(), held.whole_to.tolist()) == ([seen], [upto])


def test_a_missing_number_is_known_until_it_comes() -> None:
    first = carried_on(nothing(), make_appended("c1", [5, 6], first_number=2), {})
    second = carried_on(first, make_appended("c1", [4]), {})

    assert first.whole_to.tolist() == [0]
    assert second.whole_to.tolist() == [3]
    assert second.events["seq"].tolist() == [1, 2, 3]


def test_an_append_that_was_journalled_twice_is_there_once() -> None:
    once = make_appended("c1", [5, 6])

    twice = carried_on(carried_on(nothing(), once, {}), once, {"c1": 2})

    assert twice.events.tolist() == once.events.tolist()


def test_events_that_no_window_reaches_are_left_out_and_it_is_known_since_when() -> None:
    old = carried_on(nothing(), make_appended("c1", [0, 1]), {"c1": 2})

    held = carried_on(old, make_appended("c1", [REMEMBERED_US + 1], 3), {})

    assert held.events["event_timestamp"].tolist() == [1, REMEMBERED_US + 1]
    assert (held.events_from, held.whole_to.tolist()) == (1, [3])


def test_it_is_read_as_it_was_written() -> None:
    held = carried_on(nothing(), make_appended("c2", [3, 1, 2]), {"c2": 1})
    held = carried_on(held, make_appended("c1", [9]), {})

    again = numbered_in(held.table())

    assert again.keys == held.keys == ["c2", "c1"]
    assert again.events_from == held.events_from
    for name in ("starts", "events", "exact_from", "whole_to"):
        assert getattr(again, name).tolist() == getattr(held, name).tolist()


def test_of_some_keys_it_has_these_alone() -> None:
    held: Numbered = nothing()
    for key in ("a", "b", "c"):
        held = carried_on(held, make_appended(key, [1, 2]), {})

    some = held.of({"c", "a", "x"})

    assert (some.keys, some.starts.tolist(), len(some.events)) == (["a", "c"], [0, 2, 4], 4)


def test_a_snapshot_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"gone\.parquet .* is gone"):
        of_snapshot(tmp_path / "gone.parquet", "customer")
