"""The cold store, each law on a real SQLite file and on a real Postgres."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from switchyard.errors import StoreError
from switchyard.serving.cold_store import ColdStore, open_cold_store
from switchyard.serving.feast_format import MISSING, View
from switchyard.serving.freshness import PERIOD_US

CARD = View("card_profile", "card_id", "card", ("day", "count", "bits"))
SHOP = View("shop_profile", "shop_id", "shop", ("day", "sum"))
DAY = PERIOD_US
Open = Callable[..., ColdStore]


@pytest.fixture(params=["sqlite", "postgres"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the test's own cold store, as often as it likes."""
    url: str | None = None
    if request.param == "postgres":
        import psycopg

        url = request.getfixturevalue("postgres_url")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS profiles, views")
    opened: list[ColdStore] = []

    def open_it(views: tuple[View, ...] = (CARD, SHOP)) -> ColdStore:
        opened.append(open_cold_store(url, tmp_path / "cold" / "profiles.sqlite", views))
        return opened[-1]

    yield open_it
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Open) -> ColdStore:
    return open_store()


def write_cards(store: ColdStore, day: int, **rows: list[int]) -> int:
    matrix = np.array(list(rows.values()), np.int64).reshape(len(rows), 3)
    return store.write_profiles("card_profile", list(rows), matrix, np.full(len(rows), day * DAY))


def cards(store: ColdStore, *names: str) -> dict[str, tuple[int, list[int]]]:
    found = store.read([names, []])[0]
    return {name: (p.available_at, p.profile.tolist()) for name, p in found.profiles.items()}


def test_a_profile_reads_as_it_was_written(store: ColdStore) -> None:
    row = [20_500, MISSING, 2**63 - 1]

    written = write_cards(store, 10, a=row, b=[1, 2, 3])

    assert written == 2
    assert cards(store, "a", "nobody") == {"a": (10 * DAY, row)}


def test_both_views_are_read_at_once_each_with_its_own_mark(store: ColdStore) -> None:
    write_cards(store, 10, a=[1, 1, 1])
    store.write_profiles("shop_profile", ["a"], np.array([[7, 8]]), np.array([9 * DAY]))

    of_cards, of_shops = store.read([["a"], ["a"]])

    assert (of_cards.synced_through, of_shops.synced_through) == (10 * DAY, 9 * DAY)
    assert of_shops.profiles["a"].profile.tolist() == [7, 8]


def test_an_unsynced_view_is_empty_and_says_so(store: ColdStore) -> None:
    write_cards(store, 10, a=[1, 1, 1])

    of_shops = store.read([[], ["s"]])[1]

    assert (of_shops.profiles, of_shops.synced_through) == ({}, MISSING)


def test_a_profile_that_is_removed_is_gone_and_the_others_stay(store: ColdStore) -> None:
    assert (store.has("card_profile", "a"), store.remove("card_profile", "a")) == (False, 0)
    write_cards(store, 10, a=[1, 1, 1], b=[2, 2, 2])

    removed = store.remove("card_profile", "a"), store.remove("shop_profile", "b")

    assert removed == (1, 0)
    assert (store.has("card_profile", "a"), store.has("card_profile", "b")) == (False, True)
    assert cards(store, "a", "b") == {"b": (10 * DAY, [2, 2, 2])}


def test_nothing_of_a_removed_profile_is_left_in_the_sqlite_file(tmp_path: Path) -> None:
    store = open_cold_store(None, tmp_path / "profiles.sqlite", (CARD, SHOP))
    write_cards(store, 10, **{"card-4711-0815": [1, 1, 1], "b": [2, 2, 2]})
    cards(store, "b")  # as a worker that reads beside it

    store.remove("card_profile", "card-4711-0815")

    left = [file.read_bytes() for file in tmp_path.glob("profiles.sqlite*")]
    store.close()
    assert not any(b"card-4711-0815" in content for content in left)


def test_a_sync_of_an_older_day_replaces_nothing_newer(store: ColdStore) -> None:
    write_cards(store, 10, a=[10, 1, 1])

    written = write_cards(store, 9, a=[9, 2, 2], b=[9, 3, 3])

    assert written == 1
    assert cards(store, "a", "b") == {"a": (10 * DAY, [10, 1, 1]), "b": (9 * DAY, [9, 3, 3])}
    assert store.read([["a"], []])[0].synced_through == 10 * DAY


def test_a_correction_of_the_same_day_arrives_with_its_nulls(store: ColdStore) -> None:
    write_cards(store, 10, a=[10, 1, 1])

    write_cards(store, 10, a=[10, 5, MISSING])

    assert cards(store, "a") == {"a": (10 * DAY, [10, 5, MISSING])}


def test_a_key_that_comes_twice_ends_with_its_newest_row(store: ColdStore) -> None:
    rows = np.array([[2, 2, 2], [3, 3, 3], [1, 1, 1]], np.int64)

    store.write_profiles("card_profile", ["a", "a", "a"], rows, np.array([2, 3, 1]) * DAY)

    assert cards(store, "a") == {"a": (3 * DAY, [3, 3, 3])}


def test_a_day_without_rows_moves_the_mark_if_told(store: ColdStore) -> None:
    nothing = np.empty((0, 3), np.int64), np.empty(0, np.int64)

    store.write_profiles("card_profile", [], *nothing)
    store.write_profiles("card_profile", [], *nothing, synced_through=4 * DAY)

    assert store.read([["a"], []])[0] == ({}, 4 * DAY)


def test_what_another_opens_later_it_finds(store: ColdStore, open_store: Open) -> None:
    write_cards(store, 10, a=[1, 1, 1])
    reader = open_store()
    before = cards(reader, "a")

    write_cards(store, 11, a=[2, 2, 2])

    assert before == {"a": (10 * DAY, [1, 1, 1])}
    assert cards(reader, "a") == {"a": (11 * DAY, [2, 2, 2])}


def test_readers_meet_whole_days_only_and_two_writers_take_turns(
    store: ColdStore, open_store: Open
) -> None:
    names = [f"c{i}" for i in range(500)]
    write_cards(store, 0, **{name: [0, 0, 0] for name in names})
    writers = [
        threading.Thread(
            target=lambda: [
                write_cards(open_store(), day, **{name: [day] * 3 for name in names})
                for day in range(1, 6)
            ]
        )
        for _ in range(2)
    ]
    for writer in writers:
        writer.start()

    seen = []
    while any(writer.is_alive() for writer in writers):
        read = store.read([names, []])[0]
        seen.append({p.available_at for p in read.profiles.values()} | {read.synced_through})

    assert all(len(moments) == 1 for moments in seen)
    assert cards(store, "c0") == {"c0": (5 * DAY, [5, 5, 5])}


def test_other_features_are_refused_until_the_next_sync_replaces_all_rows(
    store: ColdStore, open_store: Open
) -> None:
    write_cards(store, 10, a=[1, 2, 3], b=[1, 2, 3])
    renamed = open_store((View("card_profile", "card_id", "card", ("day", "bits", "count")), SHOP))

    with pytest.raises(StoreError, match="'card_profile' with other features"):
        renamed.read([["a"], []])
    write_cards(renamed, 9, a=[4, 5, 6])

    assert cards(renamed, "a", "b") == {"a": (9 * DAY, [4, 5, 6])}


# ---------------------------------------------------------------- what fails


def test_before_the_first_sync_there_is_none_and_reading_makes_none(tmp_path: Path) -> None:
    file = tmp_path / "cold.sqlite"

    with pytest.raises(StoreError, match=r"no cold store at .* yet"):
        open_cold_store(None, file, (CARD,)).read([["a"]])

    assert not file.exists()


def test_a_damaged_file_says_so_and_a_good_one_in_its_place_is_read(tmp_path: Path) -> None:
    file = tmp_path / "cold.sqlite"
    store = open_cold_store(None, file, (CARD, SHOP))
    file.write_bytes(b"no database" * 1000)

    with pytest.raises(StoreError, match="can't be read"):
        cards(store, "a")
    with pytest.raises(StoreError, match="can't be written"):
        write_cards(store, 1, a=[1, 1, 1])
    file.unlink()
    write_cards(store, 1, a=[1, 1, 1])

    assert cards(store, "a") == {"a": (DAY, [1, 1, 1])}
    store.close()


def test_a_torn_profile_says_so(tmp_path: Path) -> None:
    file = tmp_path / "cold.sqlite"
    store = open_cold_store(None, file, (CARD, SHOP))
    write_cards(store, 1, a=[1, 1, 1])
    connection = sqlite3.connect(file)
    with connection:
        connection.execute("UPDATE profiles SET profile = x'00'")
    connection.close()

    with pytest.raises(StoreError, match="has 1 bytes; right are 24"):
        cards(store, "a")
    store.close()


def test_an_interrupted_write_leaves_the_old_day_whole(store: ColdStore) -> None:
    write_cards(store, 1, a=[1, 1, 1])
    rows = np.array([[2, 2, 2], [3, 3, 3]])

    with pytest.raises((StoreError, UnicodeEncodeError)):
        store.write_profiles("card_profile", ["a", "\ud800"], rows, np.array([2, 2]) * DAY)

    assert store.read([["a"], []])[0].synced_through == DAY
    assert cards(store, "a") == {"a": (DAY, [1, 1, 1])}


def test_a_postgres_that_is_not_there_is_a_store_error(tmp_path: Path) -> None:
    store = open_cold_store(f"postgresql://nobody:secret@/none?host={tmp_path}", tmp_path, (CARD,))

    with pytest.raises(StoreError, match="can't be read") as caught:
        store.read([["a"]])

    assert "secret" not in str(caught.value)
