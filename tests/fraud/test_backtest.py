"""The backtest knows of each moment what was known then: no verdict counts before it arrived.

On a small sample in the Handbook's format, with terminals that are compromised for two weeks; times are
whole minutes, so that verdicts often arrive at the very moment of a payment at the same terminal.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from switchyard.fraud.backtest import Backtest, BacktestPlan, run_backtest
from switchyard.settings import load_settings

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
FIRST = date(2018, 5, 1)
DAYS, PER_DAY, CUSTOMERS, TERMINALS = 30, 300, 100, 50
PLAN = BacktestPlan(train_start=FIRST + timedelta(days=9))
MINUTE_US = 60_000_000
DAY_US = 1440 * MINUTE_US
DELAY_US = 7 * DAY_US
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TEST_DAYS = [PLAN.test_start + timedelta(days=i) for i in range(PLAN.test_days)]


@dataclass(frozen=True)
class Sample:
    """Transactions in order of time; ``moment`` in microseconds since 1970."""

    transaction_id: Ints
    moment: Ints
    customer_id: Ints
    terminal_id: Ints
    amount: npt.NDArray[np.float64]
    fraud: Ints

    @property
    def known_at(self) -> Ints:
        return self.moment + DELAY_US

    def write(self, folder: Path, flipped: Bools) -> None:
        """One Parquet file a day, the verdicts of ``flipped`` turned over."""
        table = pa.table(
            {
                "TRANSACTION_ID": self.transaction_id,
                "TX_DATETIME": pa.array(self.moment).cast(pa.timestamp("us")),
                "CUSTOMER_ID": self.customer_id,
                "TERMINAL_ID": self.terminal_id,
                "TX_AMOUNT": self.amount,
                "TX_FRAUD": np.where(flipped, 1 - self.fraud, self.fraud),
            }
        )
        folder.mkdir()
        day = (self.moment - midnight_us(FIRST)) // DAY_US
        for i in range(DAYS):
            name = f"{FIRST + timedelta(days=i)}.parquet"
            pq.write_table(table.filter(pa.array(day == i)), folder / name)


def make_sample(seed: int = 7) -> Sample:
    """Every third day another terminal is compromised for a fortnight: most payments there are frauds."""
    rng = np.random.default_rng(seed)
    n = DAYS * PER_DAY
    day = np.repeat(np.arange(DAYS), PER_DAY)
    minute = np.sort(rng.integers(0, 1440, (DAYS, PER_DAY)), axis=1).ravel()
    terminal = rng.integers(0, TERMINALS, n)
    since = day - 3 * (terminal - 5)
    fraud = (since >= 0) & (since < 14) & (rng.random(n) < 0.9)
    return Sample(
        transaction_id=5_000_000_000 + rng.permutation(n),  # beyond 32 bits
        moment=midnight_us(FIRST) + day * DAY_US + minute * MINUTE_US,
        customer_id=rng.integers(0, CUSTOMERS, n),
        terminal_id=terminal,
        amount=np.round(rng.gamma(2.0, 30.0, n), 2),
        fraud=fraud.astype(np.int64),
    )


def midnight_us(day: date) -> int:
    return (day - EPOCH.date()).days * DAY_US


def run(folder: Path, sample: Sample, flipped: Bools | None = None) -> Backtest:
    """The backtest in a home of its own."""
    sample.write(folder / "data", np.zeros(len(sample.fraud), bool) if flipped is None else flipped)
    settings = load_settings(home=folder / "home", source="handbook", data=folder / "data")
    return run_backtest(settings, PLAN, lambda *_: None)


@pytest.fixture(scope="module")
def sample() -> Sample:
    return make_sample()


@pytest.fixture(scope="module")
def plain(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Backtest:
    return run(tmp_path_factory.mktemp("plain"), sample)


@pytest.fixture(scope="module")
def other_delay_week(sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Backtest:
    """The backtest with every verdict of the delay week turned over."""
    start, end = (
        midnight_us(PLAN.train_start + timedelta(days=PLAN.train_days)),
        midnight_us(PLAN.test_start),
    )
    of_delay_week = (sample.moment >= start) & (sample.moment < end)
    return run(tmp_path_factory.mktemp("delay"), sample, of_delay_week)


def test_every_transaction_of_the_test_week_is_predicted_under_the_sources_own_id(
    sample: Sample, plain: Backtest
) -> None:
    start = midnight_us(PLAN.test_start)
    in_test = (sample.moment >= start) & (sample.moment < start + PLAN.test_days * DAY_US)

    assert plain.predictions["TRANSACTION_ID"].type == pa.int64()
    ids = plain.predictions["TRANSACTION_ID"].to_numpy()
    assert sorted(ids.tolist()) == sorted(sample.transaction_id[in_test].tolist())
    assert plain.figures["test_rows"] == len(ids) == in_test.sum()


def test_the_verdicts_that_are_known_help_to_find_frauds(sample: Sample, plain: Backtest) -> None:
    position = pc.index_in(plain.predictions["TRANSACTION_ID"], pa.array(sample.transaction_id))
    fraud = sample.fraud[position.to_numpy()] == 1
    scores = plain.predictions["score"].to_numpy()

    assert scores[fraud].mean() > 3 * scores[~fraud].mean()


def test_same_seed_and_input_give_the_same_predictions(
    sample: Sample, plain: Backtest, tmp_path: Path
) -> None:
    again = run(tmp_path, sample)

    assert again.predictions.equals(plain.predictions)
    assert saved(again, tmp_path / "again") == saved(plain, tmp_path / "plain")


def test_the_delay_weeks_verdicts_change_no_model(
    plain: Backtest, other_delay_week: Backtest, tmp_path: Path
) -> None:
    assert saved(other_delay_week, tmp_path / "other") == saved(plain, tmp_path / "plain")


@pytest.mark.parametrize("day", TEST_DAYS, ids=str)
def test_verdicts_known_on_a_day_change_its_predictions(
    sample: Sample, plain: Backtest, other_delay_week: Backtest, day: date
) -> None:
    moment, changed = compared(sample, plain, other_delay_week)
    start = midnight_us(day)

    assert changed[(moment >= start) & (moment < start + DAY_US)].any()


@pytest.mark.parametrize("day", TEST_DAYS, ids=str)
def test_no_verdict_still_unknown_on_a_day_changes_its_predictions(
    sample: Sample, plain: Backtest, tmp_path: Path, day: date
) -> None:
    start = midnight_us(day)
    todays = sample.moment[(sample.moment >= start) & (sample.moment < start + DAY_US)]
    last = int(todays.max())

    other = run(tmp_path, sample, sample.known_at >= last)

    moment, changed = compared(sample, plain, other)
    assert not changed[moment <= last].any()


@pytest.mark.parametrize("day", [TEST_DAYS[0], TEST_DAYS[4]], ids=str)
def test_a_verdict_counts_from_just_after_its_arrival(
    sample: Sample, plain: Backtest, tmp_path: Path, day: date
) -> None:
    now = arrival_at_a_payment(sample, day)

    other = run(tmp_path, sample, sample.known_at >= now)

    moment, changed = compared(sample, plain, other)
    assert not changed[moment <= now].any()
    assert changed[(moment > now) & (moment < now + DAY_US)].any()


def arrival_at_a_payment(sample: Sample, day: date) -> int:
    """A moment of ``day``, after six, when a verdict arrives at a terminal that is just being used."""
    start = midnight_us(day) + DAY_US // 4
    paid = set(zip(sample.moment.tolist(), sample.terminal_id.tolist(), strict=True))
    arrivals = zip(sample.known_at.tolist(), sample.terminal_id.tolist(), strict=True)
    return min(moment for moment, terminal in paid & set(arrivals) if moment >= start)


def compared(sample: Sample, one: Backtest, other: Backtest) -> tuple[Ints, Bools]:
    """Of each prediction its transaction's moment, and whether the two scores differ in any bit."""
    assert one.predictions["TRANSACTION_ID"].equals(other.predictions["TRANSACTION_ID"])
    ids = pa.array(sample.transaction_id)
    position = pc.index_in(one.predictions["TRANSACTION_ID"], ids).to_numpy()
    scores = [b.predictions["score"].to_numpy().view(np.int64) for b in (one, other)]
    return sample.moment[position], scores[0] != scores[1]


def saved(backtest: Backtest, folder: Path) -> dict[str, bytes]:
    """The bytes of every file of the fitted model."""
    backtest.fitted.save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}
