"""What the service's decisions turn out to be worth, day by day: the model level of monitoring.

The champion's decisions of a week whose verdicts have matured are held to what its release promised; a younger week is told
provisionally, with the interval in which it will come to lie. Not here: the estimators (``learning.maturity``,
``learning.performance``), or what a failed verdict starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from switchyard.errors import TrainingError
from switchyard.fraud.events import LABEL_DELAY_DAYS
from switchyard.fraud.journalled import decisions_between
from switchyard.fraud.labels import labels_as_of
from switchyard.fraud.money import minor_units
from switchyard.lake import Lake
from switchyard.learning import Floats, Ints
from switchyard.learning.day_reports import DayReport, DayReports
from switchyard.learning.inverse_propensity import inverse_propensity
from switchyard.learning.maturity import Arrivals, Arrived, MaturityPolicy
from switchyard.learning.metrics import Metric, Ranking
from switchyard.learning.performance import BLOCK, Judged, PerformancePolicy, score_shift
from switchyard.learning.policy import Verdict
from switchyard.learning.release import read_manifest
from switchyard.settings import Settings

WINDOW = timedelta(days=7)
PROVISIONAL_AFTER = timedelta(days=3)
"""A week that ended so long ago is told provisionally."""
ARRIVAL_DAYS = 28
"""Days of verdicts, all old enough to have arrived, that tell how long verdicts take."""
LEAST_FRAUDS = 30
"""Fewer in a matured week say nothing about its average precision."""
MOST_PSI = 0.1
"""Of scores against the release's promise, above which somebody should look."""
BANDS = (10, 50, 100, 250, 1_000)
"""Ends of the amount bands, in major units."""
MOST_SLICES = 12
"""Values of a column that are told, the most frequent."""
_COLUMNS = [
    "transaction_id", "customer_id", "event_timestamp", "amount_minor", "score", "decision", "release",
    "variant", "reasons", "propensity", "customer_country", "terminal_country", "merchant_category", "channel",
]  # fmt: skip
_CODES = {"allow": 0, "review": 1, "block": 2}


def measure_model(
    settings: Settings, lake: Lake, day: date, *, now: datetime | None = None
) -> DayReport:
    """Judge the week of decisions that had matured by the end of ``day``, tell a younger one provisionally, and save
    the report; labels as known at ``now`` (default: the end of the day).

    A rerun gives the same report: what went before is taken from that of the day before. Where nothing was
    decided, or nothing has matured, the verdict passes and says so. Raises JournalError, ReleaseError as reading
    journal and manifest does.
    """
    end = datetime.combine(day + timedelta(days=1), time(), UTC)
    report = DayReport("model", day, _verdict(settings, lake, day, end, now or end))
    DayReports(settings.monitoring).save(report)
    return report


def _verdict(settings: Settings, lake: Lake, day: date, end: datetime, now: datetime) -> Verdict:
    delay = timedelta(days=settings.label_delay_days)
    start = end - max(delay, PROVISIONAL_AFTER) - WINDOW
    seen = decisions_between(settings.journal, lake, start, end, _COLUMNS)
    served = _Served.of(seen)
    if served is None:
        return Verdict(
            True, ("nothing to judge: the champion decided nothing in this time",), {"decisions": 0}
        )
    manifest = read_manifest(settings.releases / served.release)
    newest = served.between(end - WINDOW, end)
    figures: dict[str, Any] = {
        "release": served.release,
        "decisions": len(newest.rows),
        "by_decision": dict(Counter(newest.rows["decision"].to_pylist())),
        "reasons": newest.reasons(),
        "scores": newest.shift(manifest),
    }
    arrivals = _arrivals(lake, now)
    young = served.between(end - PROVISIONAL_AFTER - WINDOW, end - PROVISIONAL_AFTER)
    figures["provisional"] = _provisional(young, lake, now, arrivals)
    matured = served.between(end - delay - WINDOW, end - delay)
    known = _known(matured, lake, now, arrivals)
    ripe = MaturityPolicy(settings.label_delay_days).judge(
        days_since_end=(now - end + delay) / timedelta(days=1),
        rows=len(matured.rows),
        known=len(known.judged.y),
    )
    if not ripe.passed:
        return Verdict(True, ("nothing has matured: " + "; ".join(ripe.reasons),), figures)
    figures["matured"] = ripe.figures | _outcome(known, settings.currency)
    return _performance(settings, day, manifest, known, figures)


def _performance(
    settings: Settings,
    day: date,
    manifest: Mapping[str, Any],
    known: _Known,
    figures: dict[str, Any],
) -> Verdict:
    frauds = known.frauds
    told = manifest["metrics"].get("candidate", {}).get("average_precision")
    if frauds < LEAST_FRAUDS or told is None:
        why = (
            f"{frauds} known frauds in the matured week, {LEAST_FRAUDS} are needed"
            if told
            else f"release {manifest['id']} does not say what it reached when it was assessed"
        )
        return Verdict(True, ("not judged: " + why,), figures)
    before = DayReports(settings.monitoring).before("model", day)
    past = before.verdict.figures if before else {}
    same = past.get("performance") if past.get("release") == figures["release"] else None
    found = known.arrived.measure_beyond(known.average_precision)
    verdict = PerformancePolicy().judge(Metric(**told), found, same)
    return Verdict(verdict.passed, verdict.reasons, figures | {"performance": verdict.figures})


# ---------------------------------------------------------------- what was served


@dataclass(frozen=True, slots=True)
class _Served:
    """Decisions of one release that had a score, as the champion's or the control's part."""

    rows: pa.Table
    release: str

    @classmethod
    def of(cls, seen: pa.Table) -> _Served | None:
        """Those of the release that decided last; None if there are none."""
        decides = pc.is_in(seen["variant"], pa.array(["champion", "control"]))
        rows = seen.filter(pc.and_(decides, pc.is_valid(seen["score"])))
        if len(rows) == 0:
            return None
        last = pc.index(rows["event_timestamp"], pc.max(rows["event_timestamp"])).as_py()
        release = rows["release"][last].as_py()
        return cls(rows.filter(pc.equal(rows["release"], release)), release)

    def between(self, start: datetime, end: datetime) -> _Served:
        when = self.rows["event_timestamp"]
        inside = pc.and_(pc.greater_equal(when, start), pc.less(when, end))
        return _Served(self.rows.filter(inside), self.release)

    def reasons(self) -> dict[str, int]:
        """How often each reason was given, the most frequent first."""
        told = pc.list_flatten(self.rows["reasons"])
        codes = (reason["code"] for reason in told.to_pylist() if reason)
        return dict(Counter(code for code in codes if code).most_common(MOST_SLICES))

    def shift(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Where the scores lie, against what the release promised."""
        scores = self.rows["score"].to_numpy()
        if len(scores) == 0 or "scores" not in manifest["metrics"]:
            return {}
        mean = {"mean": float(scores.mean()), "deviation": float(scores.std())}
        return mean | score_shift(manifest["metrics"]["scores"], scores)


# ---------------------------------------------------------------- what is known of it


@dataclass(frozen=True, slots=True)
class _Known:
    """The rows of a window that have a verdict."""

    rows: pa.Table
    judged: Judged
    arrived: Arrived

    @property
    def frauds(self) -> int:
        """Of those that count; a block for which one stands that exploration let through has no weight."""
        return int(np.sum((self.judged.y > 0) & (self.judged.weight > 0)))

    def average_precision(self, weight: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        return Ranking(self.judged.y, self.judged.score).average_precision(weight)


def _arrivals(lake: Lake, now: datetime) -> Arrivals | None:
    """How long verdicts take; None while none are old enough to tell."""
    last = (now - timedelta(days=LABEL_DELAY_DAYS)).date() - timedelta(days=1)
    labels = labels_as_of(lake, last - timedelta(days=ARRIVAL_DAYS - 1), last, now)
    try:
        return Arrivals.of(
            _verdicts(labels), _micros(labels, "label_available_at", "event_timestamp")
        )
    except TrainingError:
        return None


def _known(served: _Served, lake: Lake, now: datetime, arrivals: Arrivals | None) -> _Known:
    rows = _with_verdict(served.rows, lake, now)
    y = _verdicts(rows)
    age_us = int(now.timestamp() * 1e6) - rows["event_timestamp"].cast(pa.int64()).to_numpy()
    customers = (
        rows["customer_id"]
        .combine_chunks()
        .dictionary_encode()
        .indices.to_numpy(zero_copy_only=False)
    )
    arrived = (
        Arrived.at(y, age_us, customers, arrivals)
        if arrivals
        else Arrived(y, np.ones(len(y)), customers, float("nan"))
    )
    decision, stands_for = _explored(rows)
    arrived = replace(arrived, weight=arrived.weight * stands_for)
    judged = Judged(
        y=y,
        score=rows["score"].to_numpy(),
        decision=decision,
        amount=rows["amount_minor"].to_numpy(),
        weight=arrived.weight,
    )
    return _Known(rows, judged, arrived)


def _explored(rows: pa.Table) -> tuple[Ints, Floats]:
    """What was decided before exploration, and how many rows each stands for because of it."""
    decision = np.array([_CODES[d] for d in rows["decision"].to_pylist()], np.int64)
    chance = np.asarray(pc.fill_null(rows["propensity"], np.nan).to_numpy(), np.float64)
    if np.isnan(chance).all():
        return decision, np.ones(len(decision))
    weight = inverse_propensity(chance, decision == BLOCK)
    let_through = ~np.isnan(chance) & (decision != BLOCK)
    return np.where(let_through, BLOCK, decision), weight


def _with_verdict(rows: pa.Table, lake: Lake, now: datetime) -> pa.Table:
    """The rows whose verdict is known at ``now``, and the column ``is_fraud``."""
    if len(rows) == 0:
        return rows.append_column("is_fraud", pa.array([], pa.bool_()))
    days = pc.min_max(rows["event_timestamp"]).as_py()
    labels = labels_as_of(lake, days["min"].date(), days["max"].date(), now)
    place = pc.index_in(rows["transaction_id"], labels["transaction_id"].combine_chunks())
    known = pc.is_valid(place)
    verdicts = labels["is_fraud"].take(place.filter(known))
    return rows.filter(known).append_column("is_fraud", verdicts)


def _provisional(
    served: _Served, lake: Lake, now: datetime, arrivals: Arrivals | None
) -> dict[str, Any]:
    """The week's average precision as far as it can be told, and its interval."""
    if arrivals is None or len(served.rows) == 0:
        why = (
            "no decisions" if arrivals else "no verdicts are old enough to tell how long they take"
        )
        return {"told": False, "because": why}
    known = _known(served, lake, now, arrivals)
    if not known.frauds:
        return {"told": False, "because": "no fraud of the week is known yet"}
    metric = known.arrived.measure(known.average_precision)
    return {
        "told": True,
        "average_precision": asdict(metric),
        "share_of_frauds_known": known.arrived.share,
        "decisions": len(served.rows),
        **known.judged.outcome(),
    }


def _outcome(known: _Known, currency: str) -> dict[str, Any]:
    """What a matured week was worth, in all and by slice."""
    sliced = {
        "terminal_country": known.rows["terminal_country"].to_pylist(),
        "customer_country": known.rows["customer_country"].to_pylist(),
        "merchant_category": known.rows["merchant_category"].to_pylist(),
        "channel": known.rows["channel"].to_pylist(),
        "amount": _bands(known.judged.amount, currency),
    }
    slices = {
        name: dict(list(known.judged.slices(values).items())[:MOST_SLICES])
        for name, values in sliced.items()
    }
    return known.judged.outcome() | {"slices": slices}


def _bands(amount: Ints, currency: str) -> list[str | None]:
    """The amount band of each row, in words."""
    ends = np.array(BANDS) * minor_units(currency)
    names = [
        f"under {BANDS[0]}",
        *(f"{a} to {b}" for a, b in pairwise(BANDS)),
        f"from {BANDS[-1]}",
    ]
    return [names[i] for i in np.searchsorted(ends, amount, side="right")]


def _verdicts(labels: pa.Table) -> Ints:
    verdicts: Ints = labels["is_fraud"].to_numpy(zero_copy_only=False).astype(np.int64)
    return verdicts


def _micros(table: pa.Table, later: str, earlier: str) -> Ints:
    ends, begins = (table[name].cast(pa.int64()).to_numpy() for name in (later, earlier))
    return np.asarray(ends - begins)
