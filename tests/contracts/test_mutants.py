"""The judge of parity catches what it is there to catch: four wrong services, each found by its journal.

Store, engine, journal and assembly are the real ones; a mutant errs only in what it computes from, while
its journal claims that all was as it should be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from benchmarks.skew import LATE_FEATURE, AnHourLate
from switchyard.fraud.columns import FEATURES, Freshness
from switchyard.fraud.events import EVENT, HEADER, KEY, MISSING
from switchyard.fraud.online import FraudDomain
from switchyard.fraud.recompute import Recomputed, recompute
from switchyard.fraud.requests import Transaction
from switchyard.fraud.skew import measure_skew
from switchyard.fraud.sync import sync_profiles
from switchyard.fraud.windows import build_profiles, profiles_on
from switchyard.lake import Lake
from switchyard.learning.release import Release
from switchyard.serving import valkey
from switchyard.serving.domain import Assembled
from switchyard.serving.segments import read_journal
from switchyard.serving.trip import Trip
from switchyard.settings import load_settings
from tests.contracts.test_served_parity import make_engine, serve, store_of
from tests.releases import make_release
from tests.streams import Row, land, make_label, make_transaction

DAY = timedelta(days=1)
FIRST = datetime(2026, 3, 2, 6, tzinfo=UTC)
DAYS = 4
WRITTEN = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("mutants")
    yield folder
    valkey.stop(folder)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return make_release(tmp_path_factory.mktemp("releases"))


@pytest.fixture(scope="module")
def traffic() -> tuple[list[Row], list[Row]]:
    """Twelve payments a day by three cards at three terminals; every fourth is found out in a day."""
    rng = np.random.default_rng(7)
    transactions = [
        make_transaction(
            transaction_id=f"t{day}-{number}",
            customer_id=f"c{rng.integers(3)}",
            terminal_id=f"s{rng.integers(3)}",
            amount_minor=int(rng.integers(100, 90_000)),
            event_timestamp=FIRST
            + day * DAY
            + timedelta(seconds=int(rng.integers(600)) + 600 * number),
            device_id=f"d{rng.integers(4)}",
        )
        for day in range(DAYS)
        for number in range(12)
    ]
    labels = [
        make_label(row, label_available_at=row["event_timestamp"] + DAY)
        for row in transactions[:-12:4]
    ]
    return transactions, labels


@pytest.fixture
def lake(tmp_path: Path, traffic: tuple[list[Row], list[Row]]) -> Lake:
    lake = land(tmp_path / "lake", *traffic)
    first = FIRST.date()
    build_profiles(lake, first, first + (DAYS - 1) * DAY, created_at=WRITTEN)
    return lake


class WithoutTheNewestEvent(FraudDomain):
    """A window off by one event."""

    def assemble(self, requests: Sequence[Transaction], trip: Trip | None) -> Assembled:
        assert trip
        cut = [[_without_newest(blob) for blob in blobs] for blobs in trip.activity]
        return super().assemble(requests, trip._replace(activity=tuple(cut)))


class WithTheOwnEvent(FraudDomain):
    """The transaction itself stands in the windows, a microsecond before itself."""

    def assemble(self, requests: Sequence[Transaction], trip: Trip | None) -> Assembled:
        assert trip
        own = [[append.record for append in self.appends(request)] for request in requests]
        more = [
            [_with(blob, events[place]) for blob, events in zip(blobs, own, strict=True)]
            for place, blobs in enumerate(trip.activity)
        ]
        return super().assemble(requests, trip._replace(activity=tuple(more)))


class WithThePreviousDaysProfile(FraudDomain):
    """The profile of the day before the one that the journal names."""

    def __init__(self, minor_units: int, lake: Lake) -> None:
        super().__init__(minor_units)
        self._lake = lake

    def assemble(self, requests: Sequence[Transaction], trip: Trip | None) -> Assembled:
        assert trip
        older = []
        for place, (owner, key) in enumerate(KEY.items()):
            day = trip.profiles[place][:, 0].copy()
            keys = [getattr(request, key) for request in requests]
            before = np.where(day == MISSING, MISSING, day - 1)
            matrix = profiles_on(self._lake, keys, before, owner)
            matrix[:, 0] = day
            older.append(matrix)
        return super().assemble(requests, trip._replace(profiles=tuple(older)))


def test_the_right_service_has_no_difference(
    home: Path, release: Release, traffic: tuple[list[Row], list[Row]], lake: Lake
) -> None:
    recomputed = run(home, release, traffic, lake, FraudDomain(100))

    assert recomputed.rows == len(traffic[0])
    assert recomputed.differences == ()


def test_a_window_off_by_one_event_is_found(
    home: Path, release: Release, traffic: tuple[list[Row], list[Row]], lake: Lake
) -> None:
    recomputed = run(home, release, traffic, lake, WithoutTheNewestEvent(100))

    assert freshness_of(recomputed) == {"event"}


def test_the_previous_days_profile_is_found(
    home: Path, release: Release, traffic: tuple[list[Row], list[Row]], lake: Lake
) -> None:
    recomputed = run(home, release, traffic, lake, WithThePreviousDaysProfile(100, lake))

    assert "daily" in freshness_of(recomputed)
    older = [d for d in recomputed.differences if d.feature == "customer_tx_count_30d"]
    assert any(0 < d.served < d.recomputed for d in older)


def test_the_own_event_counted_is_found(
    home: Path, release: Release, traffic: tuple[list[Row], list[Row]], lake: Lake
) -> None:
    recomputed = run(home, release, traffic, lake, WithTheOwnEvent(100))

    assert freshness_of(recomputed) == {"event"}
    assert len({d.decision_id for d in recomputed.differences}) == recomputed.rows


def test_a_feature_computed_an_hour_late_is_named_by_the_daily_check(
    home: Path, release: Release, traffic: tuple[list[Row], list[Row]], lake: Lake
) -> None:
    run(home, release, traffic, lake, AnHourLate(100))

    day = FIRST.date() + DAY
    (report, *_) = measure_skew(load_settings(home=lake.root.parent), lake, day)

    assert not report.verdict.passed
    assert set(report.verdict.figures["by_feature"]) == {LATE_FEATURE}
    first = report.verdict.figures["differences"][0]
    assert first["served"] != first["recomputed"]
    card = first.pop("customer_id")  # the report names it, its sentences go into records for good
    assert card
    assert {str(value) in report.verdict.reasons[1] for value in first.values()} == {True}


def run(
    home: Path,
    release: Release,
    traffic: tuple[list[Row], list[Row]],
    lake: Lake,
    domain: FraudDomain,
) -> Recomputed:
    """The traffic in order through an engine of ``domain``, profiles synced before each day's first."""
    engine = make_engine(valkey.start(home), release, lake.root.parent / "journal")
    engine.domain = domain
    transactions, labels = traffic
    for day in range(DAYS):
        today = (FIRST + day * DAY).date()
        if day:
            sync_profiles(lake, store_of(engine), today - DAY)
        sent = [(r["event_timestamp"], "decide", r) for r in transactions]
        sent += [(r["label_available_at"], "label", r) for r in labels]
        todays = sorted((each for each in sent if each[0].date() == today), key=lambda s: s[0])
        for start in range(0, len(todays), 3):
            serve(engine, [(what, row) for _, what, row in todays[start : start + 3]])
    engine.journal.close()
    return recompute(read_journal(engine.journal.folder), lake, lake.root.parent / "activity")


def freshness_of(recomputed: Recomputed) -> set[Freshness]:
    """How fresh the features are that came out differently."""
    differing = {difference.feature for difference in recomputed.differences}
    return {column.freshness for column in FEATURES if column.name in differing}


def _without_newest(blob: bytes) -> bytes:
    return blob[: max(HEADER.size, len(blob) - EVENT.itemsize)] if blob else blob


def _with(blob: bytes, record: bytes) -> bytes:
    """The blob with one more event in its place, its last number unchanged."""
    event = np.frombuffer(record, EVENT).copy()
    event["event_timestamp"] -= 1
    head = blob[: HEADER.size] or HEADER.pack(0, 1)
    events = np.concatenate([np.frombuffer(blob[HEADER.size :], EVENT), event])
    order = np.lexsort((events["event_id"], events["event_timestamp"]))
    return head + events[order].tobytes()
