"""Drift of the data: false retrainings and alarms in health, power against shifts, days until a change is found.

Simulator, features, reference and policy alone, in worlds of 120 days. The first 30 of a world fill the windows of
30 days (its features drift then, and rightly so); the next 28 are the reference, the other 62 are judged. One JSON
line per world in ``folder``, so that a run goes on where it was stopped. Not here: the lake of a home, Evidently.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from switchyard.errors import SettingsError
from switchyard.fraud.activity import build_activity
from switchyard.fraud.columns import FEATURES, TRANSACTION, arrow_schema, names
from switchyard.fraud.episodes import Tactics
from switchyard.fraud.features import vectors_of
from switchyard.fraud.money import parse_amounts
from switchyard.fraud.simulate import Shift, Simulator, SimulatorConfig
from switchyard.fraud.windows import build_profiles
from switchyard.lake import Lake, days_between
from switchyard.learning import Floats, Ints
from switchyard.learning.drift import MODERATE
from switchyard.learning.drift_policy import DriftPolicy, DriftState
from switchyard.learning.reference import Reference, reference_of

FIRST = date(2026, 1, 1)
WARM_UP, REFERENCE, DAYS = 30, 28, 120
CHANGED = 65
"""Day on which the worlds of ``CHANGES`` change."""
SEEDS, ROWS = 200, 5_000
BAR_RETRAININGS, BAR_ALARMS, BAR_POWER = 5, 0.01, 0.9
SMALL, LARGE = 500, 50_000
SMALL_SEEDS, LARGE_SEEDS, LARGE_DAYS = 20, 1, 79
SHIFT = 0.5
"""Standard deviations."""
WRITTEN = datetime(2000, 1, 1, tzinfo=UTC)
PARTS = ("healthy", "sizes", "changes")

CHANGES: dict[str, dict[str, Any]] = {
    "spending x 1.1": {"spending_factor": 1.1},
    "spending x 1.3": {"spending_factor": 1.3},
    "spending x 2": {"spending_factor": 2.0},
    "card testing x 5, takeovers x 5": {"tactics": Tactics(card_testing=5, account_takeover=5)},
    "compromised terminals x 4": {"tactics": Tactics(compromised_terminal=4)},
    "amounts like the card's own": {"tactics": Tactics(excess=0.0)},
    "all frauds x 3": {"tactics": Tactics(3, 3, 3, 3, 3)},
}


@dataclass(frozen=True)
class World:
    """What one line of the file is of."""

    seed: int
    rows: int = ROWS
    days: int = DAYS
    change: str = "none"

    def config(self) -> SimulatorConfig:
        begins = FIRST + timedelta(days=CHANGED)
        shifts = (Shift(begins, **CHANGES[self.change]),) if self.change != "none" else ()
        return SimulatorConfig(
            seed=self.seed, first_day=FIRST, customers=self.rows, terminals=self.rows * 2 // 5,
            transactions_per_day=self.rows, shifts=shifts,
        )  # fmt: skip


@dataclass
class Lines:
    """Results that outlive a run: one JSON line each, found again by its world."""

    path: Path
    held: dict[str, dict[str, Any]] = field(default_factory=dict)

    def read(self) -> None:
        if self.path.exists():
            rows = map(json.loads, self.path.read_text().splitlines())
            self.held = {row["world"]: row for row in rows}

    def of(self, worlds: list[World], told: Callable[[str], None]) -> list[dict[str, Any]]:
        """The worlds' results, those measured now that are not there yet (another process may measure, too)."""
        for i, world in enumerate(worlds):
            self.read()
            if repr(world) not in self.held:
                told(f"{i + 1} of {len(worlds)}: {world}")
                row = {"world": repr(world), **measure(world)}
                with self.path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        self.read()
        return [self.held[repr(world)] for world in worlds]


def run(
    *,
    quick: bool = False,
    seed: int | None = None,
    only: str | None = None,
    folder: Path | None = None,
    console: Console | None = None,
    **source: Any,
) -> dict[str, Any]:
    """Figures by name. ``only``: parts of PARTS, comma-separated; ``quick``: few worlds; ``seed``: begin with that one.

    ``folder`` keeps the lines. Raises SettingsError for a part that there is not, or for a source.
    """
    parts = tuple(only.split(",")) if only else PARTS
    if unknown := [*set(parts) - {*PARTS}, *(name for name, value in source.items() if value)]:
        raise SettingsError(
            f"'bench drift' measures worlds of its own in the parts {PARTS}, not {unknown}"
        )
    told: Callable[[str], None] = console.print if console is not None else lambda _: None
    with _kept(folder) as kept:
        lines = Lines(kept / "drift.jsonl")
        made: dict[str, Callable[[], dict[str, Any]]] = {
            "healthy": lambda: _healthy(lines, 5 if quick else SEEDS, seed or 1, told),
            "sizes": lambda: _sizes(lines, quick, told),
            "changes": lambda: _changes(lines, 1 if quick else 3, told),
        }
        figures: dict[str, Any] = {}
        for part in parts:
            figures |= made[part]()
    failed = [name for name, value in figures.items() if name.endswith("reached") and not value]
    return figures | {"failed": failed}


@contextmanager
def _kept(folder: Path | None) -> Iterator[Path]:
    """The folder given, or one that goes at the end."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as spare:
        yield Path(spare)


# ---------------------------------------------------------------- parts


def _healthy(lines: Lines, seeds: int, first: int, told: Callable[[str], None]) -> dict[str, Any]:
    order = [World((first - 1 + i) % seeds + 1) for i in range(seeds)]
    found = lines.of(order, told)
    asked = [asks(row["counts"]) for row in found]
    retrainings = sum(map(len, asked))
    return {
        "healthy_seeds": seeds,
        "healthy_days_judged": sum(row["days"] for row in found),
        "healthy_retrainings_by_drift": retrainings,
        "healthy_seeds_that_asked": sum(map(bool, asked)),
        "healthy_reached": retrainings <= BAR_RETRAININGS * seeds / SEEDS,
        f"alarms_at_{ROWS}_rows": _share(found, "alarms"),
        f"beyond_chance_at_{ROWS}_rows": _share(found, "beyond_chance"),
        "most_moved_on_3_days": _tally(row["most_on_3_days"] for row in found),
        "seconds_per_seed": round(float(np.median([row["seconds"] for row in found])), 1),
    }


def _sizes(lines: Lines, quick: bool, told: Callable[[str], None]) -> dict[str, Any]:
    small = [World(seed, SMALL) for seed in range(1, 1 + (2 if quick else SMALL_SEEDS))]
    large = [] if quick else [World(1 + i, LARGE, LARGE_DAYS) for i in range(LARGE_SEEDS)]
    figures: dict[str, Any] = {}
    for size, worlds in ((SMALL, small), (LARGE, large)):
        if not worlds:
            continue
        found = lines.of(worlds, told)
        alarms = _share(found, "alarms")
        figures |= {
            f"alarms_at_{size}_rows": alarms,
            f"alarms_at_{size}_rows_reached": alarms <= BAR_ALARMS,
            f"beyond_chance_at_{size}_rows": _share(found, "beyond_chance"),
            f"power_at_{size}_rows": _share(found, "shifts_found"),
            f"least_power_at_{size}_rows": found[0]["least_found"],
        }
        if size == LARGE:
            figures["power_reached"] = figures[f"power_at_{size}_rows"] >= BAR_POWER
    return figures


def _changes(lines: Lines, seeds: int, told: Callable[[str], None]) -> dict[str, Any]:
    figures = {}
    for change in CHANGES:
        found = lines.of([World(seed, change=change) for seed in range(1, seeds + 1)], told)
        figures[f"days until '{change}' is found"] = ", ".join(
            next((str(day - CHANGED + 1) for day in asks(row["counts"]) if day >= CHANGED), "not")
            for row in found
        )
    return figures | {"days_looked_at_after_a_change": DAYS - CHANGED}


def _share(found: list[dict[str, Any]], name: str) -> float:
    of = "shifts" if name == "shifts_found" else "feature_days"
    return round(sum(row[name] for row in found) / sum(row[of] for row in found), 5)


def _tally(values: Iterable[int]) -> str:
    counted = sorted(Counter(values).items())
    return ", ".join(f"{value}: {times} worlds" for value, times in counted)


def asks(counts: list[int]) -> list[int]:
    """Days of the world on which the policy asks for a retraining; ``counts``: features moved on each judged day."""
    state, policy, asked = DriftState(), DriftPolicy(), []
    for i, count in enumerate(counts):
        day = FIRST + timedelta(days=WARM_UP + REFERENCE + i)
        moved = names(FEATURES)[:count]
        state, _ = policy.step(state, day, moved, reference="", features=len(FEATURES))
        if state.asked_on == day:
            asked.append((day - FIRST).days)
    return asked


# ---------------------------------------------------------------- one world


def measure(world: World) -> dict[str, Any]:
    """What a world's line says: how many features moved on each day; the policy takes it from there (``asks``)."""
    begun = time.process_time()
    X, day, customer, terminal = vectors(world)
    known = day < day[0] + REFERENCE
    reference = reference_of(
        X[known], day[known], (customer[known], terminal[known]), names(FEATURES)
    )
    judged = np.unique(day[~known]).tolist()
    counts, alarms = [], 0
    for one in judged:
        columns = reference.compare(X[day == one], one)
        moved = [name for name, c in columns.items() if c.beyond_chance]
        alarms += sum(columns[name].psi > MODERATE for name in moved)
        counts.append(len(moved))
    row = {
        "days": len(judged),
        "feature_days": len(judged) * len(FEATURES),
        "alarms": alarms,
        "beyond_chance": sum(counts),
        "most_on_3_days": max(min(counts[i : i + 3]) for i in range(len(counts) - 2)),
        "counts": counts,
    }
    row |= _power(reference, X[~known], day[~known], judged[:7])
    return row | {"seconds": round(time.process_time() - begun, 1)}


def _power(reference: Reference, X: Floats, day: Ints, days: list[int]) -> dict[str, Any]:
    """How many alarms come when every feature is shifted by SHIFT deviations, and of which feature the fewest."""
    rng = np.random.default_rng(0)
    deviation = np.sqrt(np.nanvar(X, axis=0))
    found = dict.fromkeys(reference.columns, 0)
    for one in days:
        rows = X[day == one]
        moved = np.column_stack(
            [shifted(rows[:, i], deviation[i], rng) for i in range(rows.shape[1])]
        )
        for name, column in reference.compare(moved, one).items():
            found[name] += column.beyond_chance and column.psi > MODERATE
    least = min(found, key=lambda name: found[name])
    return {
        "shifts": len(found) * len(days),
        "shifts_found": sum(found.values()),
        "least_found": f"{least}: {found[least]} of {len(days)}",
        "not_always_found": [name for name, times in found.items() if times < len(days)],
    }


def shifted(values: Floats, deviation: float, rng: np.random.Generator) -> Floats:
    """The values with their mean moved up by SHIFT deviations: all by as much, or of zeros and ones so many more ones."""
    seen = values[~np.isnan(values)]
    if not np.isin(seen, (0.0, 1.0)).all():
        return values + SHIFT * deviation
    zero = values == 0
    share = SHIFT * deviation * len(seen) / max(zero.sum(), 1)
    return np.where(zero & (rng.random(len(values)) < share), 1.0, values)


def vectors(world: World) -> tuple[Floats, Ints, Ints, Ints]:
    """Vectors float64[n, 50] of all days behind the warm-up in order, and of each row day (since 1970), customer and
    terminal."""
    days = days_between(FIRST, FIRST + timedelta(days=world.days - 1))
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(
        prefix="switchyard-bench-", dir=memory if memory.exists() else None
    ) as folder:
        lake = Lake(Path(folder))
        land(lake, world, days)
        build_profiles(lake, days[WARM_UP - 2], days[-1], created_at=WRITTEN)
        build_activity(lake, days[WARM_UP], days[-1])
        rows = lake.read("transactions", days[WARM_UP], days[-1])
        X = vectors_of(lake, rows)
    codes = [
        pc.dictionary_encode(rows[key]).combine_chunks().indices.to_numpy().astype(np.int64)
        for key in ("customer_id", "terminal_id")
    ]
    day = rows["event_timestamp"].cast(pa.int64()).to_numpy() // 86_400_000_000
    return X, day, codes[0], codes[1]


def land(lake: Lake, world: World, days: list[date]) -> None:
    """Transactions and labels of a world's days, as landing would write them."""
    simulator = Simulator(world.config())
    for day in days:
        simulated = simulator.day(day)
        rows = simulated.transactions
        minor = parse_amounts(rows["amount"], world.config().currency).minor
        columns = {"amount_minor": pa.array(minor)} | {
            name: rows[name] for name in names(TRANSACTION) if name != "amount_minor"
        }
        schema = arrow_schema(TRANSACTION)
        lake.write("transactions", day, pa.table([columns[n] for n in schema.names], schema=schema))
        lake.write("labels", day, simulated.labels)
