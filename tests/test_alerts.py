"""One message per incident and one for its end, whatever repeats, flaps, is down or restarts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from switchyard.alerts import Book, Failure, Message, Pass, load_book, save_book, tell
from switchyard.errors import AlertError, InputError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUIET = timedelta(hours=6)
KEY = "check drift: features_did_not_move"


@dataclass
class Wire:
    """A channel of this process, which can be down."""

    name: str = "wire"
    down: bool = False
    sent: list[Message] = field(default_factory=list)

    def send(self, message: Message) -> None:
        if self.down:
            raise AlertError(f"{self.name} was not reached")
        self.sent.append(message)

    def words(self) -> list[str]:
        return [message.word for message in self.sent]


class Watch:
    """A book that is saved, loaded again for each look, and told to channels."""

    def __init__(self, folder: Path, *channels: Wire) -> None:
        self.file = folder / "incidents.json"
        self.channels = channels

    def look(self, minutes: float, *happened: Failure | Pass) -> Book:
        now = NOON + timedelta(minutes=minutes)
        book = (load_book(self.file) or Book(NOON)).note(happened, QUIET).without_old(now)
        save_book(book, self.file)
        return tell(book, self.channels, now, QUIET, self.file)[0]


def failed(minutes: float, key: str = KEY, reason: str = "amount moved by 0.4") -> Failure:
    return Failure(
        key, "check", key.removeprefix("check "), reason, "job monitor, run 1f2e3d4c",
        "http://127.0.0.1:3001/runs/1f2e3d4c", "look at the report", NOON + timedelta(minutes=minutes),
    )  # fmt: skip


def passed(minutes: float, key: str = KEY) -> Pass:
    return Pass(key, NOON + timedelta(minutes=minutes))


def test_an_incident_is_told_once_and_so_is_its_end(tmp_path: Path) -> None:
    wire = Wire()
    watch = Watch(tmp_path, wire)

    watch.look(0, failed(0))
    watch.look(15, failed(15))
    watch.look(30, failed(30))
    watch.look(45, passed(45))
    watch.look(60, passed(60))

    assert wire.words() == ["failed", "resolved"]
    assert "3 times" in wire.sent[1].text
    assert "over    2026-03-01 12:45 UTC" in wire.sent[1].text
    assert wire.sent[0].thread == wire.sent[1].thread


def test_the_message_says_what_where_since_when_and_what_to_do(tmp_path: Path) -> None:
    wire = Wire()

    Watch(tmp_path, wire).look(0, failed(0))

    (message,) = wire.sent
    assert message.title == "[switchyard] drift: features_did_not_move: failed"
    for line in (
        "amount moved by 0.4",
        "where   job monitor, run 1f2e3d4c",
        "since   2026-03-01 12:00 UTC, once, last 2026-03-01 12:00 UTC",
        "run     http://127.0.0.1:3001/runs/1f2e3d4c",
        "What to do: look at the report",
    ):
        assert line in message.text


def test_what_still_fails_after_the_quiet_time_is_told_again_with_its_count(tmp_path: Path) -> None:
    wire = Wire()
    watch = Watch(tmp_path, wire)

    watch.look(0, failed(0))
    watch.look(359, failed(359))
    assert wire.words() == ["failed"]
    watch.look(361)
    watch.look(362, failed(362))

    assert wire.words() == ["failed", "goes on"]
    assert "2 times" in wire.sent[1].text


def test_what_comes_and_goes_within_the_quiet_time_is_counted_not_told(tmp_path: Path) -> None:
    wire = Wire()
    watch = Watch(tmp_path, wire)

    for minutes in range(0, 300, 30):
        watch.look(minutes, failed(minutes))
        watch.look(minutes + 15, passed(minutes + 15))
    assert wire.words() == ["failed", "resolved"]
    watch.look(300, failed(300))
    watch.look(400)
    watch.look(420, passed(420))

    assert wire.words() == ["failed", "resolved", "goes on", "resolved"]
    assert "11 times" in wire.sent[2].text


def test_what_comes_back_later_is_a_new_incident(tmp_path: Path) -> None:
    wire = Wire()
    watch = Watch(tmp_path, wire)

    watch.look(0, failed(0))
    watch.look(10, passed(10))
    watch.look(500, failed(500))

    assert wire.words() == ["failed", "resolved", "failed"]
    assert wire.sent[2].thread != wire.sent[0].thread
    assert "once" in wire.sent[2].text


def test_different_things_are_different_incidents_and_the_oldest_is_told_first(
    tmp_path: Path,
) -> None:
    wire = Wire()

    book = Watch(tmp_path, wire).look(5, failed(3, "check b: two"), failed(1, "check a: one"))

    assert [m.title for m in wire.sent] == [
        "[switchyard] a: one: failed", "[switchyard] b: two: failed",
    ]  # fmt: skip
    assert [incident.newest.what for incident in book.open()] == ["a: one", "b: two"]


def test_a_channel_that_is_down_is_told_later_and_keeps_no_other_from_it(tmp_path: Path) -> None:
    wire, broken = Wire(), Wire("broken", down=True)
    watch = Watch(tmp_path, broken, wire)

    watch.look(0, failed(0), failed(0, "check a: one"))
    assert (wire.words(), broken.words()) == (["failed", "failed"], [])
    watch.look(1, passed(1, "check a: one"))
    broken.down = False
    watch.look(2)
    watch.look(3)

    assert sorted(broken.words()) == ["failed", "was over before it could be told"]
    assert wire.words() == ["failed", "failed", "resolved"]


def test_a_channel_that_is_down_costs_one_try_at_each_look(tmp_path: Path) -> None:
    tries = []

    class Dead(Wire):
        def send(self, message: Message) -> None:
            tries.append(message.id)
            raise AlertError("dead was not reached")

    watch = Watch(tmp_path, Dead())

    for minutes in range(3):
        watch.look(minutes, failed(minutes), failed(minutes, "check a: one"))

    assert len(tries) == 3


def test_a_channel_that_stays_down_for_a_week_after_the_end_is_given_up(tmp_path: Path) -> None:
    wire = Wire(down=True)
    watch = Watch(tmp_path, wire)

    watch.look(0, failed(0), failed(0, "check a: one"))
    watch.look(10, passed(10))
    wire.down = False
    book = watch.look(10 + 7 * 24 * 60)

    assert list(book.incidents) == ["check a: one"]
    assert wire.words() == ["failed"]


def test_a_message_sent_but_not_noted_is_sent_again_with_the_same_id(tmp_path: Path) -> None:
    wire = Wire()
    watch = Watch(tmp_path, wire)
    book = Book(NOON).note([failed(0)], QUIET)
    save_book(book, watch.file)

    tell(book, [wire], NOON, QUIET, tmp_path / "killed before it was saved.json")
    watch.look(1)
    watch.look(2)

    assert len(wire.sent) == 2
    assert wire.sent[0].id == wire.sent[1].id


def test_a_damaged_book_is_named(tmp_path: Path) -> None:
    file = tmp_path / "incidents.json"
    file.write_text('{"until": ')

    with pytest.raises(InputError, match=r"incidents\.json is no book of incidents"):
        load_book(file)
