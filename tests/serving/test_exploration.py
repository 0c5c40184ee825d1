"""What goes to review instead of being blocked: by chance, the same for each asking, within its money."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from switchyard.serving.exploration import SPENT, Exploration, exploration_of, take_out
from switchyard.settings import load_settings

NOON_US = 1_772_366_400_000_000  # 2026-03-01 12:00 UTC
DAY_US = 86_400_000_000


def make_exploration(folder: Path, share: float = 0.2, budget: int = 10**9) -> Exploration:
    return Exploration(folder, share, most_minor=10_000, budget_minor=budget)


def test_a_share_goes_to_review_with_its_propensity(tmp_path: Path) -> None:
    choices = [make_exploration(tmp_path).choose(f"t{n}", 100, NOON_US) for n in range(1_000)]

    explored = [choice for choice in choices if choice and choice.explored]
    assert 150 < len(explored) < 250
    assert {c.propensity for c in choices if c} == {0.2, 0.8}
    assert all(c.propensity == 0.2 for c in explored)


def test_a_transaction_asked_again_gets_the_same_choice_and_costs_nothing(tmp_path: Path) -> None:
    first = [make_exploration(tmp_path).choose(f"t{n}", 100, NOON_US) for n in range(50)]
    size = (tmp_path / "2026-03-01").stat().st_size

    again = [make_exploration(tmp_path).choose(f"t{n}", 100, NOON_US) for n in range(50)]
    next_day = [
        make_exploration(tmp_path).choose(f"t{n}", 100, NOON_US + DAY_US) for n in range(50)
    ]

    assert again == next_day == first
    assert (tmp_path / "2026-03-01").stat().st_size == size
    assert (tmp_path / "2026-03-02").stat().st_size == 0


def test_a_large_amount_is_never_explored(tmp_path: Path) -> None:
    assert make_exploration(tmp_path, share=0.999).choose("t", 10_001, NOON_US) is None


def test_workers_together_stay_within_the_budget_of_the_day(tmp_path: Path) -> None:
    def work(worker: int) -> None:
        mine = make_exploration(tmp_path, share=0.999, budget=1_000)
        for n in range(20):
            mine.choose(f"t{worker}-{n}", 90, NOON_US)

    threads = [threading.Thread(target=work, args=(w,)) for w in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (tmp_path / "2026-03-01").stat().st_size == 11 * SPENT.itemsize
    spare = make_exploration(tmp_path, share=0.999, budget=1_000)
    assert spare.choose("later", 90, NOON_US) is None
    tomorrow = spare.choose("later", 90, NOON_US + DAY_US)
    assert tomorrow is not None
    assert tomorrow.explored


def test_a_transaction_that_is_taken_out_leaves_nothing_but_what_it_cost(tmp_path: Path) -> None:
    mine = make_exploration(tmp_path, share=0.999, budget=200)
    mine.choose("gone", 90, NOON_US)
    mine.choose("stays", 80, NOON_US)
    before = (tmp_path / "2026-03-01").read_bytes()

    assert take_out(tmp_path, {"gone", "never"}, dry_run=True) == 1
    assert (tmp_path / "2026-03-01").read_bytes() == before
    assert [take_out(tmp_path, {"gone"}) for _ in range(2)] == [1, 0]

    left = np.frombuffer((tmp_path / "2026-03-01").read_bytes(), SPENT)
    assert left["amount_minor"].tolist() == [90, 80]
    assert (left["transaction"][0], left[1]) == (0, np.frombuffer(before, SPENT)[1])
    assert mine.choose("later", 90, NOON_US) is None


def test_what_a_killed_worker_left_half_written_is_cut(tmp_path: Path) -> None:
    (tmp_path / "2026-03-01").write_bytes(b"torn")

    make_exploration(tmp_path, share=0.999).choose("t", 90, NOON_US)

    assert (tmp_path / "2026-03-01").stat().st_size == SPENT.itemsize


@pytest.mark.parametrize(("share", "on"), [(0.0, False), (0.05, True)])
def test_it_is_off_unless_the_settings_turn_it_on(tmp_path: Path, share: float, on: bool) -> None:
    settings = load_settings(home=tmp_path, exploration_share=share)

    assert (exploration_of(settings) is not None) == on
