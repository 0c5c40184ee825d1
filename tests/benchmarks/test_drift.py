"""The drift benchmark asks as the policy does, shifts what it says, and goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.drift import CHANGED, Lines, World, asks, run, shifted
from switchyard.errors import SettingsError


def test_days_of_many_moved_features_ask_on_the_third() -> None:
    assert asks([0, 3, 3, 3, 0]) == []
    assert asks([0, 9, 9, 9, 0, 0]) == [61]


def test_a_shift_moves_the_mean_by_half_a_deviation_of_numbers_and_of_flags() -> None:
    rng = np.random.default_rng(0)
    for values in (rng.normal(3, 2, 20_000), (rng.random(20_000) < 0.1) * 1.0):
        moved = shifted(values, float(values.std()), rng)

        assert moved.mean() - values.mean() == pytest.approx(values.std() / 2, rel=0.05)
        assert set(np.unique(moved)) <= {0.0, 1.0} or len(np.unique(values)) > 2


def test_what_a_file_holds_is_not_measured_again(tmp_path: Path) -> None:
    worlds = [World(seed) for seed in (1, 2)]
    line = {"counts": [0]}
    rows = [json.dumps({"world": repr(world), **line}) for world in worlds]
    (tmp_path / "drift.jsonl").write_text("\n".join(rows) + "\n")

    found = Lines(tmp_path / "drift.jsonl").of(worlds, print)

    assert [row["counts"] for row in found] == [[0], [0]]


def test_a_world_of_a_change_differs_from_its_day_on() -> None:
    shift = World(1, change="spending x 2").config().shifts[0]

    assert (shift.day - World(1).config().first_day).days == CHANGED
    assert shift.spending_factor == 2.0
    assert World(1).config().shifts == ()


def test_a_part_or_a_source_that_it_does_not_know_is_refused() -> None:
    with pytest.raises(SettingsError, match="parts"):
        run(only="healthy,sick")
    with pytest.raises(SettingsError, match="source"):
        run(source="handbook")
