"""A reference tells chance from change: whole customers and terminals, weekdays, sizes of a day."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from switchyard.errors import InputError
from switchyard.learning.reference import Reference, reference_of

COLUMNS = ("spending", "weekly", "of_terminal", "rare", "sometimes")
CUSTOMERS, TERMINALS, ROWS = 600, 100, 1_200
Days = tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]


def days_of(first: int, last: int, seed: int = 0, rows: int = ROWS) -> Days:
    """Rows of days in which nothing changes: customers with habits and moods, other weekends, terminals with prices."""
    world = np.random.default_rng(0)
    habit, price = world.normal(0, 1, CUSTOMERS), world.normal(0, 1, TERMINALS)
    busy = world.uniform(0.5, 2, CUSTOMERS)
    rng = np.random.default_rng([seed, first])
    day = np.repeat(np.arange(first, last), rows)
    customer = rng.choice(CUSTOMERS, len(day), p=busy / busy.sum())
    terminal = rng.integers(0, TERMINALS, len(day))
    noise = rng.normal(0, 1, (len(day), 2))
    mood = rng.normal(0, 1, (last - first, CUSTOMERS))
    X = np.column_stack([
        habit[customer] + mood[day - first, customer],
        2.0 * (day % 7 >= 5) + noise[:, 1],
        price[terminal],
        rng.random(len(day)) < 0.03,
        np.where(rng.random(len(day)) < 0.5, noise[:, 0], np.nan),
    ])  # fmt: skip
    return X, day, (customer, terminal)


@pytest.fixture(scope="module")
def reference() -> Reference:
    return reference_of(*days_of(0, 28), COLUMNS)


def test_healthy_days_stay_within_chance_on_every_weekday(reference: Reference) -> None:
    X, day, _ = days_of(28, 70, seed=1)

    beyond = [
        column.beyond_chance
        for one in range(28, 70)
        for column in reference.compare(X[day == one], one).values()
    ]

    assert np.mean(beyond) <= 0.02


def test_a_weekday_that_the_reference_lacks_is_held_against_all_its_days() -> None:
    X, day, entities = days_of(0, 28)
    open_on = day % 7 != 2
    closed = reference_of(
        X[open_on], day[open_on], [each[open_on] for each in entities], COLUMNS, resamples=20
    )

    found = closed.compare(*days_of(30, 31, seed=1)[:1], day=30)

    assert all(found[name].psi < 0.1 for name in COLUMNS if name != "weekly")


def test_days_of_which_no_two_are_the_same_weekday_are_held_against_each_other() -> None:
    X, day, entities = days_of(0, 16)
    kept = (day == 0) | (day == 15)

    made = reference_of(
        X[kept], day[kept], [each[kept] for each in entities], COLUMNS, resamples=20
    )

    assert len(made.counts) == 1


def test_limits_that_took_rows_for_independent_would_alarm_every_day() -> None:
    X, day, entities = days_of(0, 28)
    alone = np.arange(len(X))

    clustered = reference_of(X, day, entities, COLUMNS).limits
    rowwise = reference_of(X, day, (alone,), COLUMNS).limits

    assert clustered[0] > 1.3 * rowwise[0]  # spending: a customer's rows of a day are alike


def test_a_shift_of_half_a_deviation_is_found_in_every_column(reference: Reference) -> None:
    X, _, _ = days_of(30, 31, seed=2)
    more = np.random.default_rng(0).random(len(X)) < 0.09
    moved = X + 0.5 * np.nanstd(X, axis=0)
    moved[:, 3] = X[:, 3] + (more & (X[:, 3] == 0))

    found = reference.compare(moved, 30)

    assert [name for name, column in found.items() if column.beyond_chance] == list(COLUMNS)
    assert found["spending"].mean_sigmas > 3
    assert found["of_terminal"].psi > 0.1


def test_a_weekday_is_held_against_its_own(reference: Reference) -> None:
    X, _, _ = days_of(33, 34, seed=3)  # 33 % 7 == 5: of the weekend

    assert not reference.compare(X, 33)["weekly"].beyond_chance
    assert reference.compare(X, 31)["weekly"].beyond_chance


def test_lost_values_show_in_share_and_psi(reference: Reference) -> None:
    X, _, _ = days_of(30, 31, seed=4)
    X[::4, 0] = np.nan

    found = reference.compare(X, 30)["spending"]

    assert found.missing == pytest.approx(0.25)
    assert found.usually_missing == 0.0
    assert found.psi > 0.1


def test_a_smaller_day_may_lie_farther_off_by_chance(reference: Reference) -> None:
    X, _, _ = days_of(30, 31, seed=5)

    whole, tenth = (reference.compare(rows, 30)["spending"] for rows in (X, X[::10]))

    assert tenth.limit == pytest.approx(10 * whole.limit)
    assert reference.compare(np.concatenate([X, X]), 30)["spending"].limit == whole.limit


def test_it_comes_back_from_its_file_as_it_was(reference: Reference, tmp_path: Path) -> None:
    X, _, _ = days_of(40, 41)
    reference.save(tmp_path / "reference.npz")

    again = Reference.load(tmp_path / "reference.npz")

    assert again.compare(X, 40) == reference.compare(X, 40)


def test_few_days_are_held_against_all_others_and_one_is_refused() -> None:
    short = reference_of(*days_of(0, 5), COLUMNS)
    X, day, entities = days_of(0, 1)

    assert len(short.counts) == 1
    with pytest.raises(InputError, match="at least 2 days, not 1"):
        reference_of(X, day, entities, COLUMNS)
    with pytest.raises(InputError, match="without a row"):
        short.compare(X[:0], 3)
