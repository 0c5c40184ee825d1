"""Operating the service under load: figures of all workers, reload, refusal, a killed worker, the end."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestration.traffic import asked, change_traffic
from switchyard.errors import PlanError, ReleaseError
from switchyard.learning.release import Release
from switchyard.learning.thresholds import Thresholds
from switchyard.serving.exposition import SCORE_BINS
from switchyard.serving.metrics import COUNTED, REASONS
from switchyard.serving.observed import OBSERVED
from switchyard.serving.plan import Change, Plan
from switchyard.serving.segments import read_journal
from switchyard.serving.traffic import mirrored
from switchyard.serving.workers import Worker, run_folder, workers
from switchyard.settings import load_settings
from tests.deploy.test_monitoring import figures_in_rules
from tests.releases import make_release
from tests.senders import sending
from tests.served import Packed, Served, serving

PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def two(packed: Packed) -> Iterator[Served]:
    """The service with two workers that have both told what they serve."""
    with serving(packed, SWITCHYARD_WORKERS="2", SWITCHYARD_PRICE_PER_HOUR="0.1") as served:
        until(lambda: len(told(served)) == 2)
        yield served


@pytest.fixture(scope="module")
def other(packed: Packed) -> Release:
    """A second release of the home."""
    return make_release(packed.home / "releases", thresholds=Thresholds(0.25, 0.55))


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S:.0f} s"
        time.sleep(0.02)


def promotion(release: str) -> Change:
    return asked({"action": "promote", "release": release, "who": "ann", "why": "a test"})


def content(plan: Plan | None) -> dict[str, Any]:
    """A plan but for its number and who made it, when and why."""
    assert plan is not None
    return {f: getattr(plan, f) for f in ("bento", "champion", "previous", "challenger", "mode")}


def shown(served: Served) -> dict[str, Any]:
    return dict(served.client.get("/v1/traffic").json())


def told(served: Served) -> list[Worker]:
    return workers(run_folder(served.home, served.process.pid))


def figures(served: Served) -> dict[str, float]:
    """Each sample of one scrape, by name and labels as they are written."""
    return {
        f"{s.name}{json.dumps(s.labels, sort_keys=True)}": s.value
        for family in text_string_to_metric_families(served.client.get("/metrics").text)
        for s in family.samples
    }


def total(shown: dict[str, float], name: str, *parts: str) -> float:
    return sum(v for k, v in shown.items() if k.startswith(name) and all(p in k for p in parts))


def test_one_scrape_shows_every_figure_of_all_workers(two: Served) -> None:
    with sending(two.port) as sent:
        until(lambda: len(sent.answered) > 200)
    until(lambda: figures(two)["switchyard_workers{}"] == 2)

    text = two.client.get("/metrics").text

    shown = figures(two)
    named = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    unsynced = {"switchyard_profile_available_at_seconds", "switchyard_profile_age_seconds"}
    assert sent.other == {}
    assert {f.name for f in (*COUNTED, *OBSERVED, SCORE_BINS)} - named <= unsynced | {REASONS.name}
    assert figures_in_rules() <= {name.partition("{")[0] for name in shown}
    assert total(shown, "switchyard_answers_total", "/v1/predict") == len(sent.answered)
    assert total(shown, "switchyard_decisions_total") == len(sent.answered)
    assert total(shown, "switchyard_score_count") == len(sent.answered)
    assert shown["switchyard_cost_per_thousand_decisions{}"] > 0
    assert total(shown, "switchyard_worker_cpu_seconds_total") > 0


def test_workers_take_a_named_release_while_requests_go_on(two: Served, other: Release) -> None:
    settings = load_settings(home=two.home)
    own = two.release_folder.name

    with sending(two.port) as sent:
        until(lambda: len(sent.answered) > 50)
        done = change_traffic(settings, promotion(other.id))
        sent.releases.clear()
        until(lambda: sent.releases.total() > 100)
        after = dict(sent.releases)
        back = change_traffic(settings, promotion(own))

    assert (done.after.champion, done.after.previous) == (other.id, own)
    assert {worker.pid for worker in told(two)} <= set(done.workers)  # others may serve it, too
    assert (back.after.champion, back.after.previous) == (own, other.id)
    assert after[other.id] >= 90  # a few were under way
    assert sent.other == {}


def test_a_damaged_release_is_refused_and_the_plan_is_as_before(
    two: Served, other: Release
) -> None:
    settings = load_settings(home=two.home)
    before = mirrored(two.home)
    champions = {worker.champion for worker in told(two)}
    foreign = make_release(two.home / "releases", code_hash="of-another-code")

    with pytest.raises(ReleaseError, match=r"what served before goes on: .*another-code"):
        change_traffic(settings, promotion(foreign.id))
    with pytest.raises(ReleaseError, match="holds no release"):
        change_traffic(settings, promotion("0" * 32))

    assert content(mirrored(two.home)) == content(before)
    assert {worker.champion for worker in told(two)} == champions
    assert two.client.get("/readyz").status_code == 200


def test_a_canary_begins_grows_and_ends_while_requests_go_on(two: Served, other: Release) -> None:
    settings = load_settings(home=two.home)
    own = two.release_folder.name
    who = {"who": "ann", "why": "a test"}
    canary = {"action": "canary", "release": other.id, **who}

    with sending(two.port) as sent:
        begun = change_traffic(settings, asked(canary | {"share": 0.05}))
        grown = change_traffic(settings, asked(canary | {"share": 0.5}))
        sent.releases.clear()
        until(lambda: sent.releases.total() > 200)
        during = set(sent.releases)
        ended = change_traffic(settings, asked({"action": "rollback", "release": other.id} | who))
        sent.releases.clear()
        until(lambda: sent.releases.total() > 100)
        after = dict(sent.releases)

    tried = [r for r in read_journal(two.journal) if r.get("experiment") == grown.after.salt]
    shares = {r["plan"] for r in tried if r["variant"] == "challenger"}
    assert begun.after.salt == grown.after.salt
    assert during == {own, other.id}
    assert grown.after.number in shares
    assert after[own] >= 90  # a few were under way
    assert (ended.after.challenger, ended.after.champion) == (None, own)
    assert sent.other == {}


def test_the_plan_is_shown_and_changed_over_http(two: Served, other: Release) -> None:
    own = two.release_folder.name
    shadow = {"action": "shadow", "release": other.id, "who": "ann", "why": "over HTTP"}

    changed = two.client.put("/v1/traffic", json=shadow)
    number = changed.json()["plan"]["number"]
    until(lambda: all(w["plan"] == number for w in shown(two)["workers"]))
    stale = two.client.put("/v1/traffic", json=shadow | {"share": None, "number": number - 1})
    unknown = two.client.put("/v1/traffic", json=shadow | {"release": "0" * 32})
    wrong = two.client.put("/v1/traffic", json=shadow | {"action": "canary", "share": 0.9})
    with sending(two.port) as sent:
        until(lambda: len(sent.answered) > 50)
    until(lambda: any(r["type"] == "shadow" for r in read_journal(two.journal)))
    back = two.client.put("/v1/traffic", json=shadow | {"action": "rollback"})

    assert (changed.status_code, back.status_code) == (200, 200)
    plan, history = changed.json()["plan"], shown(two)["history"]
    assert (plan["champion"], plan["challenger"], plan["mode"]) == (own, other.id, "shadow")
    assert (plan["who"], plan["why"]) == ("ann", "over HTTP")
    assert (history[0], shown(two)["plan"]["challenger"]) == (plan, None)
    assert [(r.status_code, r.json()["error"]["field"]) for r in (stale, unknown, wrong)] == [
        (409, None),
        (422, "release"),
        (422, "share"),
    ]
    assert two.client.post("/v1/traffic", json=shadow).headers["allow"] == "GET, PUT"


def test_a_worker_that_starts_later_follows_the_plan(two: Served, other: Release) -> None:
    settings = load_settings(home=two.home)
    canary = {"action": "canary", "release": other.id, "share": 0.1, "who": "ann", "why": "a test"}
    done = change_traffic(settings, asked(canary))
    gone = told(two)[0].pid

    psutil.Process(gone).kill()
    until(lambda: len({worker.pid for worker in told(two)} - {gone}) == 2)

    assert {(w.challenger, w.plan) for w in told(two)} == {(other.id, done.after.number)}
    change_traffic(settings, asked(canary | {"action": "rollback", "share": None}))
    with pytest.raises(PlanError, match="neither decides nor is on trial"):
        change_traffic(settings, asked(canary | {"action": "rollback", "share": None}))


def test_sighup_to_the_server_has_its_workers_read_the_plan_again(two: Served) -> None:
    pids = {worker.pid for worker in told(two)}
    name = 'switchyard_reloads_total{"outcome": "taken"}'
    before = figures(two)[name]

    two.process.send_signal(signal.SIGHUP)
    until(lambda: figures(two)[name] >= before + 2)

    assert {worker.pid for worker in told(two)} == pids


def test_a_killed_worker_is_replaced_and_what_it_counted_is_kept(two: Served) -> None:
    with sending(two.port) as sent:
        until(lambda: len(sent.answered) > 50)
    counted = total(figures(two), "switchyard_decisions_total")
    gone = told(two)[0].pid

    psutil.Process(gone).kill()
    until(lambda: len({worker.pid for worker in told(two)} - {gone}) == 2)

    until(lambda: figures(two)["switchyard_workers{}"] == 2)
    assert total(figures(two), "switchyard_decisions_total") == counted


def test_the_log_is_json_and_tells_what_happened(two: Served) -> None:
    lines = [json.loads(line) for line in two.log.read_text().splitlines() if line[:1] == "{"]

    assert any("decides from now on" in line["message"] for line in lines)
    assert any("the plan is not followed" in line["message"] for line in lines)
    assert {"time", "level", "logger", "message", "pid", "release"} <= set.intersection(
        *(set(line) for line in lines)
    )


def test_sigterm_ends_two_workers_without_a_lost_request(two: Served) -> None:
    end_under_load(two)


def test_sigterm_ends_one_worker_without_a_lost_request(packed: Packed) -> None:
    with serving(packed) as one:
        end_under_load(one)


def test_a_worker_whose_supervisor_was_killed_drains_and_leaves_the_port(packed: Packed) -> None:
    with serving(packed) as orphaned:
        (worker,) = orphaned.workers()
        with sending(orphaned.port) as sent:
            until(lambda: len(sent.answered) > 20)
            orphaned.process.kill()
            orphaned.process.wait()
            until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)

        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", orphaned.port))


def end_under_load(served: Served) -> None:
    """Whoever comes too late is refused, and knows that nothing was received; all others are answered."""
    with sending(served.port) as sent:
        until(lambda: len(sent.answered) > 100)
        served.process.send_signal(signal.SIGTERM)
        code = served.process.wait(timeout=PATIENCE_S)

    decided = {
        r["transaction"]["transaction_id"]
        for r in read_journal(served.journal)
        if r["type"] == "decision"
    }
    assert code == 0
    assert set(sent.other) <= {"refused", "idle"}
    assert sent.other["idle"] <= 1  # a connection that rested when it was closed
    assert set(sent.answered) <= decided
