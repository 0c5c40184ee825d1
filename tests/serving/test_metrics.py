"""The service's figures: what is told is what a scrape shows, in Prometheus' own reading, for all workers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from switchyard.learning.drift import SCORE_EDGES, score_shares
from switchyard.serving import observed
from switchyard.serving.exposition import exposition
from switchyard.serving.lineup import Lineup, Standing
from switchyard.serving.metrics import STAGES, Metrics, bin_names, total_of
from switchyard.serving.observed import Figure
from switchyard.serving.replies import Reason
from switchyard.serving.tally import Tally
from tests.replies import make_reply

HOUR_S = 3600.0


@pytest.fixture
def metrics(tmp_path: Path) -> Metrics:
    return Metrics(tmp_path)


def scrape(
    metrics: Metrics, *figures: Figure
) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample as Prometheus' own parser reads it, by name and labels."""
    text = exposition(total_of(metrics.folder), figures).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def sample(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def test_answers_are_counted_by_route_and_status_and_their_times_by_route(metrics: Metrics) -> None:
    metrics.answered("/v1/predict", 200, 0.0021)
    metrics.answered("/v1/predict", 200, 0.003)
    metrics.answered("/v1/predict", 422, 4.0)

    shown = scrape(metrics)

    of_route = {"route": "/v1/predict"}
    assert shown[sample("switchyard_answers_total", status="200", **of_route)] == 2
    assert shown[sample("switchyard_answers_total", status="422", **of_route)] == 1
    assert shown[sample("switchyard_answer_seconds_bucket", le="0.002", **of_route)] == 0
    assert shown[sample("switchyard_answer_seconds_bucket", le="0.003", **of_route)] == 2
    assert shown[sample("switchyard_answer_seconds_bucket", le="+Inf", **of_route)] == 3
    assert shown[sample("switchyard_answer_seconds_count", **of_route)] == 3
    assert shown[sample("switchyard_answer_seconds_sum", **of_route)] == pytest.approx(4.0051)


def test_decisions_are_counted_with_money_scores_reasons_and_rungs(metrics: Metrics) -> None:
    reasons = [Reason("NIGHT", "is_night", 1.0, 0.5), Reason("FAR", "amount", 9.0, 0.4)]
    metrics.decided(make_reply(), 5_716)
    metrics.decided(make_reply(decision="block", score=0.97, reasons=reasons), 120_050)
    metrics.decided(make_reply(decision="review", score=None, degraded=["fallback_rules"]), 1)

    shown = scrape(metrics)

    champion = {"variant": "champion"}
    assert shown[sample("switchyard_decisions_total", decision="allow", **champion)] == 1
    assert shown[sample("switchyard_decisions_total", decision="block", **champion)] == 1
    assert shown[sample("switchyard_decided_amount_total", decision="block", **champion)] == (
        pytest.approx(1200.50)
    )
    assert shown[sample("switchyard_score_count", **champion)] == 2
    assert shown[sample("switchyard_scores_total", bin="0.02", **champion)] == 1
    assert shown[sample("switchyard_scores_total", bin="0.99", **champion)] == 1
    assert shown[sample("switchyard_reasons_total", code="NIGHT")] == 1
    assert shown[sample("switchyard_degraded_decisions_total", rung="fallback_rules")] == 1


def test_a_stage_counts_for_each_decision_of_the_batch_and_not_where_nothing_was_done(
    metrics: Metrics,
) -> None:
    metrics.waiting(3)
    metrics.batch(8, [0.002 if stage == "read" else 0.0 for stage in STAGES])

    shown = scrape(metrics)

    assert shown[sample("switchyard_stage_seconds_count", stage="read")] == 8
    assert shown[sample("switchyard_stage_seconds_sum", stage="read")] == pytest.approx(0.016)
    assert shown[sample("switchyard_stage_seconds_count", stage="reasons")] == 0
    assert shown[sample("switchyard_batch_size_sum")] == 8
    assert shown[sample("switchyard_queue_depth")] == 3


def test_counters_of_all_workers_add_up_and_gauges_are_of_the_living(metrics: Metrics) -> None:
    metrics.answered("/v1/predict", 200, 0.001)
    metrics.breaker("online_store", 0)
    ended = Tally(metrics.folder / "ended.tally")
    sister = Tally(metrics.folder / f"{os.getppid()}.tally")
    for tally, state in ((ended, 2.0), (sister, 1.0)):
        tally.values[tally.slot("switchyard_answers_total\t/v1/predict\t200\t")] = 10
        tally.values[tally.slot("switchyard_breaker_state\tonline_store\t")] = state
        tally.values[tally.slot("switchyard_workers\t")] = 1

    shown = scrape(metrics)

    assert shown[sample("switchyard_answers_total", route="/v1/predict", status="200")] == 21
    assert shown[sample("switchyard_breaker_state", of="online_store")] == 1
    assert shown[sample("switchyard_workers")] == 2


def test_what_alerts_compare_is_shown_before_it_first_counts(metrics: Metrics) -> None:
    shown = scrape(metrics)

    assert shown[sample("switchyard_answers_total", route="/v1/predict", status="503")] == 0
    assert shown[sample("switchyard_decisions_total", decision="block", variant="champion")] == 0


def test_the_workers_use_of_the_machine_is_shown(metrics: Metrics) -> None:
    metrics.paused(2, 0.004)
    metrics.paused(2, 0.001)
    metrics.tick()

    shown = scrape(metrics)

    assert shown[sample("switchyard_worker_cpu_seconds_total")] > 0
    assert shown[sample("switchyard_worker_memory_bytes")] > 1e6
    assert shown[sample("switchyard_gc_pause_seconds_count", generation="2")] == 2
    assert shown[sample("switchyard_gc_longest_pause_seconds")] == 0.004


def test_a_label_may_hold_anything(metrics: Metrics) -> None:
    odd = 'a "b" \\ c'

    shown = scrape(metrics, Figure(observed.RELEASE, (odd, "champion"), 1.0))

    assert shown[sample("switchyard_release_info", release=odd, role="champion")] == 1


def test_the_references_of_the_champion_are_the_shares_of_its_evaluation() -> None:
    import numpy as np

    scores = score_shares(np.array([0.0001, 0.0001, 0.6, 0.999]))

    shares = observed.reference_shares({"metrics": {"scores": scores}})

    assert shares["0.0005"] == 0.5
    assert shares["0.6"] == shares["+Inf"] == 0.25
    assert sum(shares.values()) == 1
    assert list(shares) == bin_names(SCORE_EDGES)
    assert observed.reference_shares({"metrics": {"scores": {"edges": [0.5]}}}) == {}
    assert observed.reference_shares({"metrics": {}}) == {}


def test_releases_are_shown_by_role(release: Any) -> None:
    figures = list(observed.releases(Lineup(Standing(release, release)))({}))

    assert [(f.labels, f.value) for f in figures] == [
        ((release.id, "champion"), 1.0),
        ((release.id, "previous"), 1.0),
    ]


def test_the_journals_lag_is_the_age_of_its_oldest_segment_outside_the_lake(tmp_path: Path) -> None:
    for opened_s, size in ((1_000, 10), (2_000, 20), (3_000, 30)):
        (tmp_path / f"{opened_s * 1_000_000:016d}-1-aa.journal").write_bytes(b"x" * size)
    in_lake = {f"{1_000 * 1_000_000:016d}-1-aa.journal"}

    shown = {
        f.family.name: f.value
        for f in observed.journal(tmp_path, lambda: in_lake, clock=lambda: 5_000.0)({})
    }

    assert shown == {"switchyard_journal_bytes": 60.0, "switchyard_journal_lag_seconds": 3_000.0}


def test_the_store_is_asked_for_its_memory_once_in_a_while(store_url: str) -> None:
    now = 0.0
    look = observed.store(store_url, clock=lambda: now)

    first = {(f.family.name, f.labels): f.value for f in look({})}
    unchanged = list(look({}))
    now = 11.0
    asked_again = list(look({}))

    assert first["switchyard_store_up", ()] == 1
    used, most = (first["switchyard_store_memory_bytes", (of,)] for of in ("used", "max"))
    assert 0 < used < most
    assert [f.value for f in unchanged] == list(first.values())
    assert len(asked_again) == 3


def test_a_store_that_does_not_answer_is_shown_as_down() -> None:
    figures = list(observed.store("redis://127.0.0.1:1")({}))

    assert [(f.family.name, f.value) for f in figures] == [("switchyard_store_up", 0.0)]


def test_the_cost_of_a_thousand_decisions_follows_from_the_price_of_a_workers_hour() -> None:
    counted = {
        "switchyard_decisions_total\tallow\tchampion\t": 9_000.0,
        "switchyard_decisions_total\tblock\tchampion\t": 1_000.0,
        "switchyard_worker_seconds_total\t": 2 * HOUR_S,
    }

    priced = {f.family.name: f.value for f in observed.cost(0.5)(counted)}

    assert priced["switchyard_cost_per_thousand_decisions"] == pytest.approx(0.1)
    assert list(observed.cost(0.0)(counted)) == []


def test_profiles_are_as_old_as_the_moment_from_which_they_count() -> None:
    counted = {"switchyard_profile_available_at_seconds\tcustomer_profile\t": 100.0}

    (figure,) = observed.profiles(clock=lambda: 160.0)(counted)

    assert (figure.labels, figure.value) == (("customer_profile",), 60.0)
