"""The simulated world: days that depend on their date alone, five frauds, late labels, and its knobs."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from switchyard.errors import InputError, SourceError
from switchyard.fraud.columns import CHANNELS, LABEL, TRANSACTION, arrow_schema, names
from switchyard.fraud.countries import COUNTRIES
from switchyard.fraud.episodes import FRAUDS, Tactics
from switchyard.fraud.money import parse_amounts
from switchyard.fraud.simulate import Shift, SimulatedDay, Simulator, SimulatorConfig

FIRST = date(2026, 1, 1)
SMALL = {"customers": 300, "terminals": 120, "transactions_per_day": 350}


def make_config(**overrides: object) -> SimulatorConfig:
    return SimulatorConfig(**(SMALL | overrides))  # type: ignore[arg-type]


@cache
def forty_days() -> list[SimulatedDay]:
    world = Simulator(SimulatorConfig())
    return [world.day(FIRST + timedelta(days=i)) for i in range(40)]


def transactions() -> pa.Table:
    return pa.concat_tables([d.transactions for d in forty_days()])


def labels() -> pa.Table:
    return pa.concat_tables([d.labels for d in forty_days()])


def frauds() -> pa.ChunkedArray:
    return pa.chunked_array([d.frauds for d in forty_days()])


def mean_amount(day: SimulatedDay, fraud: str | None) -> float:
    rows = pc.is_null(day.frauds) if fraud is None else pc.equal(day.frauds, fraud)
    return float(pc.mean(day.transactions.filter(rows)["amount"].cast(pa.float64())).as_py())


def test_a_day_alone_equals_that_day_after_others() -> None:
    travelled, fresh = Simulator(make_config()), Simulator(make_config())
    for offset in (0, 5, 70, 2):
        travelled.day(FIRST + timedelta(days=offset))

    later, alone = travelled.day(date(2026, 1, 20)), fresh.day(date(2026, 1, 20))

    assert later.transactions.equals(alone.transactions)
    assert later.labels.equals(alone.labels)
    assert later.frauds.equals(alone.frauds)


def test_the_first_day_of_the_world_changes_no_day() -> None:
    late = Simulator(make_config(first_day=date(2026, 1, 15)))

    assert late.day(date(2026, 1, 20)).transactions.equals(
        Simulator(make_config()).day(date(2026, 1, 20)).transactions
    )


def test_another_seed_is_another_world() -> None:
    one, other = (Simulator(make_config(seed=s)).day(FIRST).transactions for s in (1, 2))

    assert not one.equals(other)


def test_a_day_before_the_first_is_an_error() -> None:
    with pytest.raises(SourceError, match="begins on 2026-01-01; 2025-12-31"):
        Simulator(make_config()).day(date(2025, 12, 31))


@pytest.mark.parametrize("wrong", [{"customers": 0}, {"terminals": 1}, {"transactions_per_day": 0}])
def test_a_world_too_small_is_an_error(wrong: dict[str, int]) -> None:
    with pytest.raises(SourceError, match="at least"):
        Simulator(make_config(**wrong))


def test_an_unknown_currency_is_an_error() -> None:
    with pytest.raises(InputError, match="ISO 4217"):
        Simulator(make_config(currency="ABC"))


@pytest.mark.parametrize("terminals", [2, 3, 7, 17])
def test_the_smallest_worlds_live(terminals: int) -> None:
    world = Simulator(make_config(customers=3, terminals=terminals, transactions_per_day=5))

    rows = sum(world.day(FIRST + timedelta(days=i)).transactions.num_rows for i in range(40))

    assert rows > 60


def test_transactions_have_the_raw_columns_and_labels_the_label_schema() -> None:
    day = forty_days()[0]

    expected = ["amount" if n == "amount_minor" else n for n in names(TRANSACTION)]
    assert day.transactions.column_names == expected
    assert day.transactions["event_timestamp"].type == pa.timestamp("us", tz="UTC")
    assert day.labels.schema.equals(arrow_schema(LABEL))


def test_values_are_of_their_kind() -> None:
    table = transactions()

    assert set(table["channel"].unique().to_pylist()) == set(CHANNELS)
    assert set(table["terminal_country"].unique().to_pylist()) <= COUNTRIES
    assert set(table["customer_country"].unique().to_pylist()) <= COUNTRIES
    assert pc.all(pc.match_substring_regex(table["merchant_category"], r"^\d{4}$")).as_py()
    assert pc.all(pc.match_substring_regex(table["customer_id"], r"^C\d{6}$")).as_py()
    assert pc.all(pc.match_substring_regex(table["terminal_id"], r"^T\d{5}$")).as_py()
    assert (parse_amounts(table["amount"], "EUR").reason < 0).all()


@pytest.mark.parametrize(("currency", "scale"), [("EUR", 2), ("JPY", 0), ("KWD", 3)])
def test_amounts_have_exactly_the_decimals_of_the_currency(currency: str, scale: int) -> None:
    table = Simulator(make_config(currency=currency)).day(FIRST).transactions

    assert table["amount"].type == pa.decimal128(18, scale)
    assert set(table["currency"].to_pylist()) == {currency}


def test_rows_are_sorted_in_their_day_and_ids_unique() -> None:
    for offset, day in enumerate(forty_days()):
        times = day.transactions["event_timestamp"].cast(pa.int64()).to_numpy()
        start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=offset)
        assert (np.diff(times) >= 0).all()
        assert start <= day.transactions["event_timestamp"][0].as_py()
        assert day.transactions["event_timestamp"][-1].as_py() < start + timedelta(days=1)
    ids = transactions()["transaction_id"]
    assert pc.count_distinct(ids).as_py() == len(ids)
    assert ids[0].as_py() == "20260101-000000"


def test_volume_follows_the_week_around_its_average() -> None:
    rows = np.array([d.transactions.num_rows for d in forty_days()[:35]])
    weekdays = np.array([(FIRST + timedelta(days=i)).weekday() for i in range(35)])

    assert abs(rows.mean() / 5_100 - 1) < 0.03
    assert rows[weekdays == 5].mean() > 1.15 * rows[weekdays == 6].mean()


def test_a_few_terminals_are_very_busy() -> None:
    counts = sorted(Counter(transactions()["terminal_id"].to_pylist()).values(), reverse=True)

    assert sum(counts[:20]) > 0.2 * sum(counts)
    assert len(counts) > 1_800


def test_cards_have_habits() -> None:
    table = transactions().filter(pc.is_null(frauds())).to_pandas()
    by_card = table.groupby("customer_id")
    frequent = by_card.size()[lambda n: n > 60].index
    favourite = by_card["terminal_id"].agg(lambda t: t.value_counts(normalize=True).iloc[0])
    devices = by_card["device_id"].nunique()

    assert (by_card["customer_country"].nunique() == 1).all()
    assert favourite[frequent].median() > 0.12
    assert 1 <= devices[frequent].median() <= 4
    assert (table.customer_country == table.terminal_country).mean() > 0.65


def test_about_one_in_120_is_fraud_and_all_five_kinds_occur() -> None:
    counts = Counter(frauds().to_pylist())
    share = 1 - counts[None] / sum(counts.values())

    assert 0.006 < share < 0.0105
    assert set(counts) == {None, *FRAUDS}
    assert min(counts.values()) > 50
    assert pc.sum(labels()["is_fraud"]).as_py() == sum(counts.values()) - counts[None]


def test_a_takeover_comes_from_a_new_device_abroad() -> None:
    table = transactions()
    takeovers = table.filter(pc.equal(frauds(), "account_takeover"))
    genuine = table.filter(pc.is_null(frauds()))

    assert pc.all(
        pc.not_equal(takeovers["customer_country"], takeovers["terminal_country"])
    ).as_py()
    own = set(genuine["device_id"].drop_null().to_pylist())
    assert not own & set(takeovers["device_id"].drop_null().to_pylist())


def test_card_testing_is_bursts_of_small_amounts_online() -> None:
    tests = transactions().filter(pc.equal(frauds(), "card_testing")).to_pandas()
    first = tests.groupby(["customer_id", tests.event_timestamp.dt.date]).event_timestamp
    within = first.max() - first.min()

    assert set(tests.channel) == {"ecommerce"}
    assert (tests.amount.astype(float) < 5).mean() > 0.75
    assert within.quantile(0.9) <= timedelta(minutes=21)


def test_a_compromised_terminal_stays_so_for_days() -> None:
    table = transactions().filter(pc.equal(frauds(), "compromised_terminal")).to_pandas()
    days = table.groupby("terminal_id").event_timestamp.agg(lambda t: (t.max() - t.min()).days)

    assert days.max() >= 10
    assert len(days) < 60


def test_labels_come_late_in_the_same_way_for_fraud_and_genuine() -> None:
    table = labels()
    delay = pc.subtract(table["label_available_at"], table["event_timestamp"]).cast(pa.int64())
    days = delay.to_numpy() / 86_400e6
    fraud = table["is_fraud"].to_numpy()

    assert table.num_rows == transactions().num_rows
    assert 0.015 < np.isnan(days).mean() < 0.025
    assert 4.8 < np.nanmedian(days) < 5.2
    assert np.nanmax(days) == 30.0
    assert np.nanmin(days) > 0
    assert abs(np.nanmedian(days[fraud]) - np.nanmedian(days[~fraud])) < 0.5


def test_a_spending_shift_holds_from_its_day_on() -> None:
    day = date(2026, 2, 1)
    plain = Simulator(make_config())
    shifted = Simulator(make_config(shifts=(Shift(day, spending_factor=1.5),)))

    before, after = (day - timedelta(days=1)), day

    assert shifted.day(before).transactions.equals(plain.day(before).transactions)
    ratio = mean_amount(shifted.day(after), None) / mean_amount(plain.day(after), None)
    assert 1.4 < ratio < 1.6


def test_the_latest_shift_that_has_begun_holds() -> None:
    early, late = Shift(date(2026, 2, 1), 2.0), Shift(date(2026, 3, 1), 3.0)
    config = make_config(shifts=(late, early))

    days = (date(2026, 1, 31), date(2026, 2, 1), date(2026, 3, 1))
    assert [config.shift_on(d).spending_factor for d in days] == [1.0, 2.0, 3.0]


def test_a_shift_of_tactics_changes_which_frauds_come() -> None:
    none = dict.fromkeys(FRAUDS, 0.0)
    tactics = Tactics(**(none | {"card_testing": 10.0}))
    world = Simulator(
        SimulatorConfig(shifts=(Shift(FIRST, tactics=tactics),), first_day=date(2026, 1, 1))
    )

    kinds = Counter(world.day(FIRST + timedelta(days=35)).frauds.to_pylist())

    assert set(kinds) == {None, "card_testing"}
    assert kinds["card_testing"] > 30


def test_stealthy_tactics_make_fraudulent_amounts_ordinary() -> None:
    stealth = Shift(FIRST, tactics=Tactics(excess=0.0, large_amount=20.0))
    open_ = Shift(FIRST, tactics=Tactics(large_amount=20.0))

    quiet, loud = (
        Simulator(SimulatorConfig(shifts=(s,))).day(FIRST + timedelta(days=1))
        for s in (stealth, open_)
    )

    assert mean_amount(loud, "large_amount") > 5 * mean_amount(quiet, "large_amount")
    assert 0.5 < mean_amount(quiet, "large_amount") / mean_amount(quiet, None) < 2


def test_no_single_amount_threshold_separates_fraud() -> None:
    amount = transactions()["amount"].cast(pa.float64()).to_numpy()
    fraud = labels()["is_fraud"].to_numpy()
    order = np.argsort(amount)
    ranks = np.empty(len(amount))
    ranks[order] = np.arange(len(amount))
    auc = (ranks[fraud].mean() - fraud.sum() / 2) / (~fraud).sum()

    assert 0.55 < auc < 0.9
