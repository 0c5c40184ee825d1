"""An experiment takes each decision of the journal once, and its labels once, when their day has matured."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from switchyard.fraud.columns import LABEL, TRANSACTION, arrow_schema
from switchyard.fraud.experiment import Experiment, Experiments, Phase
from switchyard.fraud.labels import LEDGER_SCHEMA, record_labels
from switchyard.lake import Lake
from switchyard.learning.slices import CHALLENGER, CONTROL
from switchyard.serving.journal import Journal
from switchyard.serving.segments import segments
from tests.canaries import make_promise

PROMISE = make_promise(4_000)
DAY = date(2026, 3, 1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CANARY = Phase("5a17", "canary", 3, 0)
SHADOW = Phase("5a17", "shadow", 2, 0)


@pytest.fixture
def experiments(tmp_path: Path) -> Experiments:
    return Experiments(tmp_path / "rollouts", tmp_path / "journal", Lake(tmp_path / "lake"))


def make_decision(number: int, variant: str, **overrides: Any) -> dict[str, Any]:
    moment = overrides.pop("at", NOON) + timedelta(seconds=number)
    payment = {
        "transaction_id": f"t{number}",
        "customer_id": f"c{number % 50}",
        "amount_minor": 1_000 + number,
        "event_timestamp_us": int(moment.timestamp() * 1e6),
    }
    record = {
        "type": "decision", "decision_id": f"d{number}", "transaction": payment, "score": 0.01,
        "decision": "allow", "variant": variant, "experiment": "5a17", "plan": 3, "model_us": 90.0,
        "degraded": [],
    }  # fmt: skip
    return record | overrides


def make_shadow(number: int, **overrides: Any) -> dict[str, Any]:
    record = {
        "type": "shadow", "decision_id": f"d{number}", "score": 0.02, "decision": "review",
        "experiment": "5a17", "plan": 2, "model_us": 40.0,
    }  # fmt: skip
    return record | overrides


def begun(experiments: Experiments, phase: Phase) -> Experiment:
    return experiments.load(phase) or experiments.begin(phase, PROMISE, 0.05)


def counts(known: Experiment) -> tuple[int, int, int]:
    """Decisions of challenger and control, and of all traffic."""
    return known.canary.count(CHALLENGER), known.canary.count(CONTROL), known.canary.seen


def land_labels(lake: Lake, day: date, numbers: range, known_at: datetime) -> None:
    rows = [
        {"transaction_id": f"t{n}", "customer_id": "c", "terminal_id": "s", "event_timestamp": NOON,
         "is_fraud": n % 2 == 0, "label_available_at": known_at}
        for n in numbers
    ]  # fmt: skip
    lake.write("labels", day, pa.Table.from_pylist(rows, arrow_schema(LABEL)))
    lake.write("transactions", day, arrow_schema(TRANSACTION).empty_table())


def test_each_decision_counts_once_however_often_the_journal_is_read(
    experiments: Experiments, tmp_path: Path
) -> None:
    variants = ["challenger", "control", "champion"]
    with Journal(tmp_path / "journal") as journal:
        journal.append([make_decision(n, variants[n % 3]) for n in range(30)])
        first = experiments.read_on(CANARY, begun(experiments, CANARY))
        again = experiments.read_on(CANARY, begun(experiments, CANARY))
        journal.append([make_decision(30, "challenger")])
    with Journal(tmp_path / "journal") as journal:  # another worker's segment
        journal.append([make_decision(31, "control")])

    last = experiments.read_on(CANARY, begun(experiments, CANARY))

    assert [counts(known) for known in (first, again, last)] == [
        (10, 10, 30), (10, 10, 30), (11, 11, 32),
    ]  # fmt: skip


def test_what_is_of_another_experiment_an_earlier_step_or_a_named_release_is_left_out(
    experiments: Experiments, tmp_path: Path
) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.append(
            [
                make_decision(1, "challenger", experiment="0the"),
                make_decision(2, "champion", plan=2),
                make_decision(3, "named"),
                make_decision(4, "champion", experiment=None),
                make_decision(5, "challenger"),
            ]
        )

    assert counts(experiments.read_on(CANARY, begun(experiments, CANARY))) == (1, 0, 1)


def test_a_line_that_is_being_written_is_read_when_it_is_whole(
    experiments: Experiments, tmp_path: Path
) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.append([make_decision(1, "challenger"), make_decision(2, "control")])
    (segment,) = segments(tmp_path / "journal")
    content = segment.read_bytes()
    segment.write_bytes(content[:-9])
    torn = experiments.read_on(CANARY, begun(experiments, CANARY))
    segment.write_bytes(content)

    whole = experiments.read_on(CANARY, begun(experiments, CANARY))

    assert (counts(torn), counts(whole)) == ((1, 0, 1), (1, 1, 2))


def test_an_arms_errors_are_what_its_own_model_left_to_others(
    experiments: Experiments, tmp_path: Path
) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.append(
            [
                make_decision(1, "challenger", degraded=["champion_instead"]),
                make_decision(2, "challenger", degraded=["stale_profile"]),
                make_decision(3, "control"),
            ]
        )

    totals = experiments.read_on(CANARY, begun(experiments, CANARY)).canary.decisions.totals

    of_arms = {
        name: [float(totals.of(arm, name)) for arm in (0, 1)] for name in ("errors", "degraded")
    }
    assert of_arms == {"errors": [1, 0], "degraded": [2, 0]}


def test_in_shadow_a_decision_waits_for_its_pair_and_neither_is_timed(
    experiments: Experiments, tmp_path: Path
) -> None:
    champions = [make_decision(n, "champion", plan=2) for n in range(3)]
    with Journal(tmp_path / "journal") as journal:
        journal.append([*champions, make_shadow(0), make_shadow(1, score=None, decision=None)])
        first = experiments.read_on(SHADOW, begun(experiments, SHADOW))
        journal.append([make_shadow(2)])

    last = experiments.read_on(SHADOW, begun(experiments, SHADOW))

    assert (counts(first)[:2], counts(last)[:2]) == ((2, 2), (3, 3))
    totals = last.canary.decisions.totals
    assert [float(totals.of(CHALLENGER, c)) for c in ("errors", "reviews", "timed")] == [1, 2, 0]
    assert [float(totals.of(CONTROL, c)) for c in ("errors", "reviews", "timed")] == [0, 0, 0]


def test_labels_count_once_their_day_has_matured_and_only_those_known_by_then(
    experiments: Experiments, tmp_path: Path
) -> None:
    lake, then = Lake(tmp_path / "lake"), NOON + timedelta(days=8)
    land_labels(lake, DAY, range(8), then - timedelta(hours=1))
    with Journal(tmp_path / "journal") as journal:
        journal.append([make_decision(n, "challenger") for n in range(10)])
    known = experiments.read_on(CANARY, begun(experiments, CANARY))

    early = experiments.mature(CANARY, known, DAY - timedelta(days=1), then)
    unknown = experiments.mature(CANARY, known, DAY, then - timedelta(days=1)).canary
    assert float(early.canary.outcomes.totals.of(CHALLENGER, "labelled")) == 0
    assert float(unknown.outcomes.totals.of(CHALLENGER, "labelled")) == 0


def test_a_verdict_of_the_ledger_counts_for_the_judge_as_the_sources_does(
    experiments: Experiments, tmp_path: Path
) -> None:
    lake, then = Lake(tmp_path / "lake"), NOON + timedelta(days=8)
    land_labels(lake, DAY, range(4), then - timedelta(hours=2))  # t0 and t2 are fraud
    found = lake.read("labels", DAY).to_pylist()
    revised = [
        row
        | {"is_fraud": True, "label_available_at": then - timedelta(hours=1), "recorded_at": then}
        | {"transaction_id": name, "source": "investigator"}
        for row, name in zip(found, ("t1", "t9"), strict=False)
    ]
    record_labels(lake, pa.Table.from_pylist(revised, LEDGER_SCHEMA))
    with Journal(tmp_path / "journal") as journal:
        journal.append([make_decision(n, "challenger") for n in range(10)])
    known = experiments.read_on(CANARY, begun(experiments, CANARY))

    matured = experiments.mature(CANARY, known, DAY, then)

    totals = matured.canary.outcomes.totals
    assert [float(totals.of(CHALLENGER, c)) for c in ("labelled", "frauds")] == [5, 4]


def test_a_matured_day_is_not_counted_again(experiments: Experiments, tmp_path: Path) -> None:
    lake, then = Lake(tmp_path / "lake"), NOON + timedelta(days=8)
    land_labels(lake, DAY, range(20), then - timedelta(hours=1))
    with Journal(tmp_path / "journal") as journal:
        journal.append([make_decision(n, "challenger") for n in range(10)])
        known = experiments.read_on(CANARY, begun(experiments, CANARY))
        experiments.mature(CANARY, known, DAY, then)
        journal.append([make_decision(10, "challenger")])  # too late for its day

    known = experiments.read_on(CANARY, begun(experiments, CANARY))
    matured = experiments.mature(CANARY, known, DAY, then)

    totals = matured.canary.outcomes.totals
    assert [float(totals.of(CHALLENGER, c)) for c in ("labelled", "frauds")] == [10, 5]
    assert (matured.late, matured.matured, counts(matured)[0]) == (1, DAY, 11)


def test_a_day_without_labels_in_the_lake_is_waited_for(
    experiments: Experiments, tmp_path: Path
) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.append([make_decision(n, "challenger") for n in range(4)])
    known = experiments.read_on(CANARY, begun(experiments, CANARY))

    waits = experiments.mature(CANARY, known, DAY, NOON + timedelta(days=9))
    land_labels(Lake(tmp_path / "lake"), DAY, range(4), NOON)
    comes = experiments.mature(CANARY, waits, DAY, NOON + timedelta(days=9))

    assert [k.canary.outcomes.totals.of(CHALLENGER, "labelled") for k in (waits, comes)] == [0, 4]


def test_what_is_put_away_keeps_its_sums_and_record_and_no_single_decision(
    experiments: Experiments, tmp_path: Path
) -> None:
    with Journal(tmp_path / "journal") as journal:
        journal.append([make_decision(n, "champion", plan=2) for n in range(4)])
        journal.append([make_shadow(n) for n in range(3)])
    experiments.read_on(SHADOW, begun(experiments, SHADOW))
    folder = tmp_path / "rollouts" / "5a17-shadow"
    assert (folder / str(DAY)).exists()
    assert "c3" in (folder / "state.json").read_text()

    assert experiments.left("5a17") == []
    (left,) = experiments.left("another")
    experiments.put_away(left, {"ended": "by ann"})
    experiments.put_away(left, {"ended": "by ann"})

    assert sorted(file.name for file in folder.iterdir()) == ["ended.json", "state.json"]
    assert counts(begun(experiments, SHADOW))[:2] == (3, 3)
    assert "c3" not in (folder / "state.json").read_text()
    assert experiments.left("another") == []
