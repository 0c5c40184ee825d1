"""The online store against a real Valkey: activity, idempotency, profiles, marks, and a store that fails."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from bisect import insort
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from switchyard.errors import StoreError
from switchyard.fraud import activity
from switchyard.serving import feast_format, profile_sync, valkey
from switchyard.serving import lease as lease_module
from switchyard.serving.commands import LEASE_MS, REPLY_SECONDS
from switchyard.serving.feast_format import MISSING, View
from switchyard.serving.freshness import OVERDUE_LIMIT_US, PERIOD_US, profile_state
from switchyard.serving.online_store import OnlineStore
from switchyard.serving.scripts import SCRIPTS, TAKE_OVER
from switchyard.serving.stored_rows import read_rows
from switchyard.serving.trip import Append, Claim, Claimed, Reply, Wanted, read_trip

CARD = View("card_profile", "card_id", "card", ("day", "count", "bits"))
SHOP = View("shop_profile", "shop_id", "shop", ("day", "sum"))
DAY = PERIOD_US
TOKENS = [bytes([n]) * 16 for n in range(4)]
BODY, OTHER_BODY = b"body" * 4, b"else" * 4


@pytest.fixture
def store(store_url: str, project: str) -> Iterator[OnlineStore]:
    store = OnlineStore(store_url, project, (CARD, SHOP))
    yield store
    store.close()


@pytest.fixture
def raw(store_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(store_url) as client:
        yield client


def make_record(moment: int, event_id: int = 1, amount: int = 100, seq: int = 0) -> bytes:
    return np.array([(moment, event_id, 7, amount, 0, seq, 0, 0, 0)], activity.EVENT).tobytes()


def append(store: OnlineStore, *records: bytes, card: str = "c") -> list[int]:
    return store.write([Append("card", card, record) for record in records]).numbers


def kept(store: OnlineStore, card: str = "c") -> tuple[int, list[tuple[int, int, int]]]:
    """Last number, and (time, id, number) of the kept events, as the service reads them."""
    blob = store.read([Wanted((card, "s"))]).activity[0][0]
    last, events = activity.decode_blob(blob)
    return last, events[["event_timestamp", "event_id", "seq"]].tolist()


class ActivityModel:
    """What the append script must do, said plainly: all events ever, in order, each with its number."""

    def __init__(self) -> None:
        self.last = 0
        self.numbers: dict[tuple[int, int], int] = {}
        self.order: list[tuple[int, int]] = []

    def append(self, moment: int, event_id: int) -> int:
        if (moment, event_id) not in self.numbers:
            self.last += 1
            self.numbers[moment, event_id] = self.last
            insort(self.order, (moment, event_id))
        return self.numbers[moment, event_id]

    def kept(self) -> list[tuple[int, int, int]]:
        return [(*event, self.numbers[event]) for event in self.order[-activity.CAPACITY :]]


# ---------------------------------------------------------------- activity


def test_events_in_order_are_numbered_from_one(store: OnlineStore) -> None:
    numbers = append(store, *[make_record(moment) for moment in (10, 20, 30)])

    assert numbers == [1, 2, 3]
    assert kept(store) == (3, [(10, 1, 1), (20, 1, 2), (30, 1, 3)])


def test_a_late_event_takes_its_place_in_time_and_the_next_number(store: OnlineStore) -> None:
    append(store, make_record(10), make_record(30))

    number = append(store, make_record(20))

    assert number == [3]
    assert kept(store) == (3, [(10, 1, 1), (20, 1, 3), (30, 1, 2)])


def test_events_of_one_moment_are_ordered_by_their_signed_64_bit_id(store: OnlineStore) -> None:
    ids = [2**62 + 1, -(2**62) - 1, 2**62, -(2**62), 3, -3, 2**31, 2**32, 0, -1]

    append(store, *[make_record(10, event_id) for event_id in ids])

    assert [event_id for _, event_id, _ in kept(store)[1]] == sorted(ids)


def test_an_event_sent_again_keeps_its_number_and_changes_nothing(store: OnlineStore) -> None:
    append(store, make_record(10), make_record(20, amount=5), make_record(30))
    before = kept(store)

    again = append(store, make_record(20, amount=6, seq=99), make_record(30), make_record(10))

    assert again == [2, 3, 1]
    assert kept(store) == before


def test_a_record_keeps_every_field_but_its_number(store: OnlineStore) -> None:
    event = np.array([(10, -5, 2**63 - 1, 123, -(2**63), 77, 65535, 1, 9)], activity.EVENT)

    append(store, event.tobytes())

    blob = store.read([Wanted(("c", "s"))]).activity[0][0]
    event["seq"] = 1
    assert blob == activity.encode_blob(1, event)


@pytest.mark.parametrize("disorder", [0, 3, 300, 2000])
def test_only_the_newest_256_are_seen_whatever_the_order_of_arrival(
    store: OnlineStore, disorder: int
) -> None:
    generator = random.Random(disorder)
    moments = sorted(range(1300), key=lambda m: m + generator.uniform(0, disorder))
    model = ActivityModel()

    expected = [model.append(moment // 2, moment % 2 - 1) for moment in moments]
    numbers = append(store, *[make_record(moment // 2, moment % 2 - 1) for moment in moments])

    assert numbers == expected
    assert kept(store) == (model.last, model.kept())


late_or_many = st.tuples(st.integers(0, 6), st.integers(-2, 2)) | st.just("many")


@given(st.lists(late_or_many, min_size=1, max_size=25))
def test_any_stream_of_events_leaves_its_newest_256(
    store_url: str, stream: list[tuple[int, int] | str]
) -> None:
    # "many" is 100 events at the end, in order, so that some streams pass the trim at 512
    store = OnlineStore(store_url, f"any{time.monotonic_ns()}", (CARD, SHOP))
    events: list[tuple[int, int]] = []
    for step, item in enumerate(stream):
        events += [(10 + step, n) for n in range(100)] if isinstance(item, str) else [item]

    numbers = append(store, *[make_record(*event) for event in events])
    last, seen = kept(store)
    store.close()

    firsts: dict[tuple[int, int], int] = {}
    for event, number in zip(events, numbers, strict=True):
        firsts.setdefault(event, number)
    newest = sorted(firsts)[-activity.CAPACITY :]
    assert seen == [(*event, firsts[event]) for event in newest]
    assert last == max(numbers)
    assert len(set(firsts.values())) == len(firsts)


def test_the_value_never_grows_beyond_512_events(store: OnlineStore, raw: redis.Redis) -> None:
    sizes = []
    for moment in range(0, 1200, 50):
        append(store, *[make_record(m) for m in range(moment, moment + 50)])
        sizes.append((raw.strlen(store.commands.activity_key("card", "c")) - 16) // 48)

    assert max(sizes) <= 512
    assert min(sizes[6:]) >= 256


def test_activities_of_different_owners_and_entities_are_apart(store: OnlineStore) -> None:
    store.write([Append("card", "x", make_record(1)), Append("shop", "x", make_record(2))])

    trip = store.read([Wanted(("x", "x")), Wanted(("y", "y"))])

    assert [len(blob) for blob in trip.activity[0]] == [64, 0]
    assert [len(blob) for blob in trip.activity[1]] == [64, 0]
    assert trip.activity[0][0] != trip.activity[1][0]


def test_something_else_under_an_activitys_key_is_refused_and_spares_the_others(
    store: OnlineStore, raw: redis.Redis
) -> None:
    raw.set(store.commands.activity_key("card", "odd"), "no activity")
    raw.lpush(store.commands.activity_key("card", "list"), "a")

    written = store.write([Append("card", c, make_record(1)) for c in ("odd", "list", "fine")])
    trip = store.read([Wanted((c, "s")) for c in ("list", "fine")])

    assert written.numbers == [0, 0, 1]
    assert len(written.refused) == 2
    assert trip.damaged == {0}
    assert "no activity of format version 1" in written.refused[0]


def test_a_record_of_another_size_is_refused(store: OnlineStore) -> None:
    written = store.write([Append("card", "c", b"short")])

    assert "48 bytes" in written.refused[0]
    assert store.read([Wanted(("c", "s"))]).activity[0] == [b""]


def test_a_filling_replaces_what_is_there_and_numbers_go_on_behind_it(store: OnlineStore) -> None:
    blobs = {
        name: activity.encode_blob(n, np.frombuffer(make_record(n), activity.EVENT))
        for n, name in enumerate(("a", "b"), start=1)
    }
    append(store, make_record(50), card="b")

    with store.filling() as lease:
        restored = store.restore_activity((("card", *row) for row in blobs.items()), lease)

    assert restored == 2
    assert [event[0] for event in kept(store, "b")[1]] == [2]
    assert append(store, make_record(5), card="b") == [3]
    assert store.last_number("card", "b") == 3
    assert store.last_number("card", "never seen") == 0


def test_an_activity_is_changed_whatever_is_appended_meanwhile(
    store: OnlineStore, store_url: str, project: str
) -> None:
    append(store, make_record(1), make_record(2, 2))
    other, tries = OnlineStore(store_url, project, (CARD, SHOP)), 0

    def change(blob: bytes) -> bytes:
        nonlocal tries
        tries += 1
        if tries == 1:
            append(other, make_record(3, 3))
        events = np.frombuffer(blob, activity.EVENT, offset=16).copy()
        events["other"] = 9
        return blob[:16] + events.tobytes()

    changed = store.change_activity("card", "c", change)
    other.close()

    assert (changed, tries) == (True, 2)
    _, events = activity.decode_blob(store.activity("card", "c") or b"")
    assert events["other"].tolist() == [9, 9, 9]
    assert append(store, make_record(4, 4)) == [4]
    assert not store.change_activity("card", "nobody", change)


def test_everything_is_every_key_with_its_value_of_whatever_type(
    store: OnlineStore, raw: redis.Redis, project: str
) -> None:
    raw.hset(f"{project}:hash", "field", "in-a-hash")
    raw.rpush(f"{project}:list", "in-a-list")
    raw.zadd(f"{project}:sorted", {"in-a-sorted-set": 1})
    raw.set(f"{project}:string", "in-a-string")

    found = {k: v for k, v in store.everything() if k.startswith(project.encode() + b":")}

    assert {k.decode().partition(":")[2] for k in found} == {"hash", "list", "sorted", "string"}
    assert all(b"in-a-" in value for value in found.values())
    assert store.count(found) == store.remove(found) == 4
    assert store.count(found) == 0


def test_an_epoch_begins_once_a_store_is_filled_and_every_trip_tells_it(store: OnlineStore) -> None:
    assert store.epoch() is None
    assert store.read([Wanted(("c", "s"))]).epoch is None

    store.begin_epoch("e1")

    assert store.epoch() == store.read([Wanted(("c", "s"))]).epoch == store.write([]).epoch == "e1"
    store.end_epoch()
    assert store.epoch() is None


def test_replies_are_kept_for_the_time_given_and_replace_none(
    store: OnlineStore, raw: redis.Redis
) -> None:
    store.write([], [Reply("t1", BODY, b"{1}")])

    with store.filling() as lease:
        given = [(Reply("t1", BODY, b"{3}"), 60), (Reply("t2", BODY, b"{4}"), 60)]
        store.keep_replies(given, lease)

    held = {tx: claim(store, bytes(16), tx=tx) for tx in ("t1", "t2")}
    assert held["t1"] == Claimed("stored", BODY, b"{1}")
    assert held["t2"] == Claimed("stored", BODY, b"{4}")
    assert 0 < raw.ttl(store.commands.decision_key("t2")) <= 60


@pytest.mark.parametrize(
    ("limit", "policy", "told"),
    [
        ("0", "allkeys-lru", None),
        ("100mb", "noeviction", None),
        ("100mb", "volatile-ttl", "volatile-ttl"),
    ],
)
def test_a_store_that_would_drop_keys_says_so(
    store: OnlineStore, raw: redis.Redis, limit: str, policy: str, told: str | None
) -> None:
    before = {name: raw.config_get(name)[name] for name in ("maxmemory", "maxmemory-policy")}
    raw.config_set("maxmemory", limit)
    raw.config_set("maxmemory-policy", policy)
    try:
        assert store.evicts() == told
    finally:
        for name, value in before.items():
            raw.config_set(name, value)


# ---------------------------------------------------------------- idempotency


def claim(store: OnlineStore, token: bytes, digest: bytes = BODY, tx: str = "t") -> Claimed | None:
    return store.read([Wanted(("c", "s"), Claim(tx, token, digest))]).claims[0]


def test_the_first_claim_is_new_and_a_second_finds_it_busy(store: OnlineStore) -> None:
    first = claim(store, TOKENS[0])
    second = claim(store, TOKENS[1], OTHER_BODY)

    assert first == Claimed("new")
    assert second == Claimed("busy", BODY)


def test_of_many_who_claim_at_once_one_gets_it(store_url: str, project: str) -> None:
    stores = [OnlineStore(store_url, project, (CARD, SHOP)) for _ in range(8)]
    states: list[str] = []

    def run(n: int) -> None:
        claimed = claim(stores[n], bytes([n]) * 16)
        assert claimed is not None
        states.append(claimed.state)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(states) == ["busy"] * 7 + ["new"]


def test_a_stored_reply_comes_back_with_the_body_it_answered(store: OnlineStore) -> None:
    claim(store, TOKENS[0])
    written = store.write([], [Reply("t", BODY, b'{"score": 1}')])

    assert written.earlier == [None]
    assert claim(store, TOKENS[1], OTHER_BODY) == Claimed("stored", BODY, b'{"score": 1}')


def test_the_first_stored_reply_stays(store: OnlineStore) -> None:
    store.write([], [Reply("t", BODY, b"{1}")])

    second = store.write([], [Reply("t", BODY, b"{2}")])

    assert second.earlier == [Claimed("stored", BODY, b"{1}")]
    assert claim(store, TOKENS[0]) == Claimed("stored", BODY, b"{1}")


def test_a_reply_is_kept_for_a_day(store: OnlineStore, raw: redis.Redis) -> None:
    store.write([], [Reply("t", BODY, b"{}")])

    assert 86_390 < raw.ttl(store.commands.decision_key("t")) <= 86_400


def test_a_claim_whose_lease_ran_out_is_taken_over_and_says_so(
    store: OnlineStore, raw: redis.Redis
) -> None:
    lapse(store, raw, age_ms=LEASE_MS + 1)

    assert claim(store, TOKENS[1], OTHER_BODY) == Claimed("lapsed", BODY)
    assert claim(store, TOKENS[2]) == Claimed("busy", OTHER_BODY)


def test_a_clock_set_back_does_not_hold_a_claim_for_longer_than_its_lease(
    store: OnlineStore, raw: redis.Redis
) -> None:
    lapse(store, raw, age_ms=-3_600_000)

    assert claim(store, TOKENS[1]) == Claimed("lapsed", BODY)


def test_a_lease_lasts_its_time_and_no_longer(store: OnlineStore, raw: redis.Redis) -> None:
    key = store.commands.decision_key("t")
    script = raw.register_script(TAKE_OVER.source)
    script([key], [TOKENS[0], BODY, 300, 60])

    at_once = script([key], [TOKENS[1], BODY, 300, 60])
    time.sleep(0.35)
    later = script([key], [TOKENS[1], BODY, 300, 60])

    assert at_once == b"b" + BODY
    assert later == b"x" + BODY


def test_claiming_again_with_the_same_token_is_no_conflict(store: OnlineStore) -> None:
    claim(store, TOKENS[0])

    assert claim(store, TOKENS[0]) == Claimed("lapsed", BODY)


def lapse(store: OnlineStore, raw: redis.Redis, age_ms: int) -> None:
    """Leave a claim by TOKENS[0] that was made ``age_ms`` ago."""
    key, left_ms = store.commands.decision_key("t"), REPLY_SECONDS * 1000 - age_ms
    raw.set(key, b"c" + TOKENS[0] + BODY, px=left_ms)


# ---------------------------------------------------------------- profiles


def write_cards(store: OnlineStore, day: int, **rows: list[int]) -> int:
    matrix = np.array(list(rows.values()), np.int64).reshape(len(rows), 3)
    return store.write_profiles("card_profile", list(rows), matrix, np.full(len(rows), day * DAY))


def card(store: OnlineStore, name: str) -> tuple[int, list[int]]:
    trip = store.read([Wanted((name, "s"))])
    return int(trip.available_at[0][0]), trip.profiles[0][0].tolist()


def test_a_profile_reads_as_it_was_written(store: OnlineStore) -> None:
    row = [20_500, 0, -(2**63) + 1]

    written = write_cards(store, 10, a=row)

    assert written == 1
    assert card(store, "a") == (10 * DAY, row)


def test_an_unknown_key_reads_as_missing(store: OnlineStore) -> None:
    trip = store.read([Wanted(("nobody", "nowhere"))])

    assert [matrix.tolist() for matrix in trip.profiles] == [[[MISSING] * 3], [[MISSING] * 2]]
    assert [times.tolist() for times in trip.available_at] == [[MISSING], [MISSING]]
    assert trip.synced_through == (MISSING, MISSING)
    assert trip.claims == [None]


def test_a_sync_of_an_older_day_replaces_nothing_newer(store: OnlineStore) -> None:
    write_cards(store, 10, a=[10, 1, 1])

    written = write_cards(store, 9, a=[9, 2, 2], b=[9, 3, 3])

    assert written == 1
    assert card(store, "a") == (10 * DAY, [10, 1, 1])
    assert card(store, "b") == (9 * DAY, [9, 3, 3])
    assert store.synced_through("card_profile") == 10 * DAY


def test_a_correction_of_the_same_day_arrives_with_its_nulls(store: OnlineStore) -> None:
    write_cards(store, 10, a=[10, 1, 1])

    write_cards(store, 10, a=[10, 5, MISSING])

    assert card(store, "a") == (10 * DAY, [10, 5, MISSING])


def test_a_key_that_comes_twice_ends_with_its_newest_row(store: OnlineStore) -> None:
    rows = np.array([[2, 2, 2], [3, 3, 3], [1, 1, 1]], np.int64)

    store.write_profiles("card_profile", ["a", "a", "a"], rows, np.array([2, 3, 1]) * DAY)

    assert card(store, "a") == (3 * DAY, [3, 3, 3])


def test_a_day_without_rows_moves_the_mark_if_told(store: OnlineStore) -> None:
    nothing = np.empty((0, 3), np.int64), np.empty(0, np.int64)

    store.write_profiles("card_profile", [], *nothing)
    before = store.synced_through("card_profile")
    store.write_profiles("card_profile", [], *nothing, synced_through=4 * DAY)

    assert before is None
    assert store.read([Wanted(("a", "s"))]).synced_through == (4 * DAY, MISSING)


def test_many_rows_over_several_chunks_read_back_equal(
    store: OnlineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_sync, "CHUNK_ROWS", 300)
    generator = np.random.default_rng(1)
    shift = generator.integers(0, 63, (1000, 3))
    rows = generator.integers(-(2**63) + 1, 2**63 - 1, (1000, 3)) >> shift
    names = [f"card-{n}" for n in range(1000)]
    times = generator.integers(1, 5, 1000) * DAY + generator.integers(0, 3, 1000)

    store.write_profiles("card_profile", names, rows, times)
    trip = store.read([Wanted((name, "s")) for name in names])

    assert (trip.profiles[0] == rows).all()
    assert (trip.available_at[0] == times).all()


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_every_int64_survives_its_encoding(number: int) -> None:
    (hset,) = feast_format.write_commands(
        SHOP, [b"key"], np.array([[number, MISSING]]), [b"\x08\x01"]
    )

    parts = hset.split(b"\r\n")

    assert read_rows([[b"\x08\x01", parts[12], b""]], 2).values.tolist() == [[number, MISSING]]


@given(st.integers(-(2**53), 2**53))
def test_every_time_survives_its_encoding(moment: int) -> None:
    assert feast_format.decode_time(feast_format.encode_time(moment)) == moment


@pytest.mark.parametrize(
    "value", [b"\x18\x01", b"\x20", b"\x20\x80", b"\x20" + b"\xff" * 10, b"\x20\x01\x01"]
)
def test_a_damaged_profile_spares_the_others(
    store: OnlineStore, raw: redis.Redis, value: bytes
) -> None:
    write_cards(store, 10, a=[1, 1, 1], b=[2, 2, 2])
    key = feast_format.entity_key(CARD, "a", store.project.encode())
    raw.hset(key, CARD.fields[1], value)

    trip = store.read([Wanted(("a", "s")), Wanted(("b", "s"))])

    assert trip.damaged == {0}
    assert trip.profiles[0].tolist() == [[MISSING] * 3, [2, 2, 2]]


def test_a_reader_never_meets_a_mixture_of_two_days(store_url: str, project: str) -> None:
    names = [f"c{n}" for n in range(50)]
    reader, writer = (OnlineStore(store_url, project, (CARD, SHOP)) for _ in range(2))
    done = threading.Event()
    seen: set[tuple[int, ...]] = set()

    def read() -> None:
        while not done.is_set():
            trip = reader.read([Wanted((name, "s")) for name in names])
            for moment, row in zip(trip.available_at[0], trip.profiles[0], strict=True):
                seen.add((int(moment), *row.tolist()))

    thread = threading.Thread(target=read)
    thread.start()
    for day in range(1, 60):
        write_cards(writer, day, **{name: [day, day, day] for name in names})
    done.set()
    thread.join()

    assert len(seen) > 2
    assert all(row == (row[1] * DAY, row[1], row[1], row[1]) for row in seen - {(MISSING,) * 4})


def test_a_second_sync_waits_until_the_first_ones_lease_has_lapsed(
    store: OnlineStore, raw: redis.Redis
) -> None:
    raw.set(f"{store.project}:syncing:card_profile", "a killed process", px=300)
    started = time.monotonic()

    write_cards(store, 1, a=[1, 1, 1])

    assert time.monotonic() - started > 0.2
    assert not raw.exists(f"{store.project}:syncing:card_profile")


def test_a_sync_that_lost_its_lease_stops(
    store: OnlineStore, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 0.2)
    lease = lease_module.Lease(store._wire, b"lease")
    lease.take()
    time.sleep(0.25)
    raw.set("lease", "somebody else", px=5_000)

    with pytest.raises(StoreError, match="another one now holds"):
        lease.keep()


# ---------------------------------------------------------------- how old a profile may be

moments = st.integers(40 * DAY, 44 * DAY)


@given(moments, st.sets(st.integers(36, 44)))
def test_with_syncs_on_time_the_rule_is_feasts_ttl(moment: int, days: set[int]) -> None:
    synced = moment // DAY * DAY
    there = max((day * DAY for day in days if day * DAY <= synced), default=MISSING)

    state = profile_state(there, moment, synced, 2 * DAY)

    assert state == ("current" if there >= moment - 2 * DAY else "expired")


@given(moments, st.integers(1, 7), st.integers(0, 3))
def test_with_a_late_sync_a_row_is_judged_as_of_the_moment_it_was_due(
    moment: int, days_late: int, age: int
) -> None:
    synced = (moment // DAY - days_late) * DAY

    state = profile_state(synced - age * DAY, moment, synced, 2 * DAY)

    assert state == ("stale" if age <= 1 else "expired")


def test_a_row_that_the_sync_under_way_has_brought_is_current() -> None:
    assert profile_state(11 * DAY, 11 * DAY + 1, 10 * DAY, 2 * DAY) == "current"
    assert profile_state(10 * DAY, 11 * DAY + 1, 10 * DAY, 2 * DAY) == "stale"


def test_profiles_long_overdue_are_given_up() -> None:
    due = 11 * DAY

    assert profile_state(10 * DAY, due + OVERDUE_LIMIT_US, 10 * DAY, 2 * DAY) == "stale"
    assert profile_state(10 * DAY, due + OVERDUE_LIMIT_US + 1, 10 * DAY, 2 * DAY) == "overdue"
    assert profile_state(MISSING, due + OVERDUE_LIMIT_US + 1, 10 * DAY, 2 * DAY) == "overdue"


def test_an_absent_profile_is_expired_whether_or_not_anything_was_synced() -> None:
    assert profile_state(MISSING, 10 * DAY, 10 * DAY, 2 * DAY) == "expired"
    assert profile_state(MISSING, 10 * DAY, MISSING, 2 * DAY) == "expired"


# ---------------------------------------------------------------- a store that fails


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    valkey.stop(tmp_path)


def test_a_store_that_is_not_there_is_named(tmp_path: Path) -> None:
    store = OnlineStore(f"unix://{tmp_path}/none.sock", "p", (CARD, SHOP))

    with pytest.raises(StoreError, match=r"none\.sock can't be used .* is it running"):
        store.ping()


def test_a_password_is_not_shown() -> None:
    store = OnlineStore("redis://:secret@127.0.0.1:1/0", "p", (CARD, SHOP))

    with pytest.raises(StoreError) as caught:
        store.ping()

    assert "127.0.0.1:1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_killed_and_restarted_store_is_found_again_without_an_error(home: Path) -> None:
    store = OnlineStore(valkey.start(home), "p", (CARD, SHOP))
    append(store, make_record(1))
    pid = int((home / "valkey" / "valkey.pid").read_text())
    time.sleep(1.2)

    os.kill(pid, signal.SIGKILL)
    valkey.start(home)

    assert append(store, make_record(1), make_record(2)) == [1, 2]


def test_forgotten_scripts_are_loaded_again(store: OnlineStore, raw: redis.Redis) -> None:
    append(store, make_record(1))
    raw.script_flush()

    assert append(store, make_record(1), make_record(2)) == [1, 2]


def test_a_frozen_store_costs_the_budget_and_no_more(home: Path) -> None:
    store = OnlineStore(valkey.start(home), "p", (CARD, SHOP))
    append(store, make_record(1))
    pid = int((home / "valkey" / "valkey.pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()

    with pytest.raises(StoreError, match="in time"):
        store.read([Wanted(("c", "s"))], timeout_s=0.05)
    took = time.monotonic() - started
    os.kill(pid, signal.SIGCONT)

    assert took < 0.5
    assert kept(store)[0] == 1


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Callable[[bytes], str]]:
    """A server that answers every connection with the given bytes, and holds it open."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "odd.sock"))
    listener.listen()
    held: list[socket.socket] = []

    def serve(words: bytes) -> str:
        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                held.append(connection)
                connection.sendall(words)

        threading.Thread(target=run, daemon=True).start()
        return f"unix://{tmp_path}/odd.sock"

    yield serve
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for connection in held:
        connection.close()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no Redis protocol"),
        (b"\x00\xff\x00\xff" * 100, "no Redis protocol"),
        (b"+OK\r\n" * 500, "no Redis protocol"),
        (b"$2147483647\r\nabc", "in time"),
        (b"-LOADING Valkey is loading the dataset in memory\r\n" * len(SCRIPTS), "LOADING"),
        (b"*3\r\n", "in time"),
        (b"", "in time"),
    ],
)
def test_garbage_from_the_store_is_an_error_within_the_budget(
    answering: Callable[[bytes], str], words: bytes, message: str
) -> None:
    store = OnlineStore(answering(words), "p", (CARD, SHOP), timeout_s=0.3)
    started = time.monotonic()

    with pytest.raises(StoreError, match=message):
        store.read([Wanted(("c", "s"), Claim("t", TOKENS[0], BODY))])

    store.close()
    assert time.monotonic() - started < 1


def test_an_error_of_the_whole_store_is_no_damage_of_single_keys() -> None:
    loading = redis.exceptions.ResponseError("LOADING Valkey is loading the dataset in memory")

    with pytest.raises(StoreError, match="LOADING"):
        read_trip((CARD,), [Wanted(("c",))], [loading, loading, loading])


def test_threads_may_share_a_store(store: OnlineStore) -> None:
    numbers: list[int] = []

    def run(n: int) -> None:
        for moment in range(50):
            numbers.extend(append(store, make_record(moment, n)))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(numbers) == list(range(1, 201))
    assert all(a[:2] < b[:2] for a, b in pairwise(kept(store)[1]))


def test_missing_means_the_same_in_activity_and_profiles() -> None:
    assert MISSING == activity.MISSING
