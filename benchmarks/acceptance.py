"""Every bar at full size: one JSON line per bar, resumable (a bar that is in the file is not run again).

Run ``make acceptance``, or ``python -m benchmarks.acceptance [BAR ...] [--again]``. The Handbook bars need
the Handbook's transactions (``--handbook``, default ``../shared/data/handbook``) and its protocol.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.demo import ROOT, SWITCHYARD, demo

Bar = Callable[["Bench"], dict[str, Any]]


class Bench:
    """Where the bars work: a folder of their own, and the outside data."""

    def __init__(self, folder: Path, handbook: Path) -> None:
        self.folder = folder
        self.handbook = handbook
        self.protocol = handbook.parents[1] / "peers" / "handbook_protocol.py"

    def home(self, name: str) -> Path:
        """A fresh home."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return self.folder / name

    def switchyard(self, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*SWITCHYARD, *arguments], env=os.environ | {"SWITCHYARD_HOME": str(home)},
            check=True, text=True, capture_output=True,
        )  # fmt: skip


def demo_simulator(bench: Bench) -> dict[str, Any]:
    """The demo on simulated transactions: under 120 s, 60 days, 300,000 transactions, parity."""
    figures = demo(bench.home("demo"))
    rows = figures["ingest_transactions"]["transactions"]
    differences = figures["replay_and_recompute"]["differences"]
    return {
        "seconds": figures["seconds_in_all"], "transactions": rows, "differences": differences,
        "reached": figures["seconds_in_all"] < 120 and rows >= 300_000 and differences == 0,
    }  # fmt: skip


def demo_handbook(bench: Bench) -> dict[str, Any]:
    """The same on 60 days of the Handbook's transactions."""
    options = ("--source", "handbook", "--data", str(bench.handbook), "--days", "60")
    figures = demo(bench.home("demo-handbook"), *options)
    differences = figures["replay_and_recompute"]["differences"]
    return {
        "seconds": figures["seconds_in_all"], "differences": differences,
        "transactions": figures["ingest_transactions"]["transactions"], "reached": differences == 0,
    }  # fmt: skip


def _backtest(bench: Bench, least: float, *options: str) -> dict[str, Any]:
    predictions = bench.folder / "predictions.parquet"
    bench.switchyard(
        bench.folder / "backtest", "backtest", "--source", "handbook", "--data", str(bench.handbook),
        "--train-start", "2018-07-25", "--predictions", str(predictions), *options,
    )  # fmt: skip
    assessed = subprocess.run(
        [sys.executable, str(bench.protocol), str(bench.handbook), str(predictions)],
        check=True, text=True, capture_output=True,
    )  # fmt: skip
    figures: dict[str, Any] = json.loads(assessed.stdout)
    return figures | {"least": least, "reached": figures["average_precision"] >= least}


def backtest_seven_days(bench: Bench) -> dict[str, Any]:
    """Average precision of the book's test week, trained on its 7 days."""
    return _backtest(bench, 0.66)


def backtest_all_history(bench: Bench) -> dict[str, Any]:
    """The same, trained on everything before."""
    return _backtest(bench, 0.70, "--history-days", "0")


def replay_100k(bench: Bench) -> dict[str, Any]:
    """100,000 transactions over 16 connections, 1 % repeated, 1 % late, nights with a sync under way."""
    home = bench.home("replay")
    figures = bench.folder / "replay.json"
    try:
        bench.switchyard(home, "demo")
        bench.switchyard(
            home, "replay", "--from", "2026-03-03", "--to", "2026-03-30", "--connections", "16",
            "--repeat", "0.01", "--late", "0.01", "--limit", "100000", "--json", str(figures),
        )  # fmt: skip
    finally:
        bench.switchyard(home, "down")
    answer: dict[str, Any] = json.loads(figures.read_text())
    enough = answer["transactions"] >= 100_000 and answer["syncs"] >= 2
    return answer | {"reached": answer["differences"] == 0 and enough}


def features(bench: Bench) -> dict[str, Any]:
    """Profiles and training windows of all Handbook days, and ten times the customers."""
    figures = bench.folder / "features.json"
    bench.switchyard(
        bench.folder / "features",
        "bench",
        "features",
        "--data",
        str(bench.handbook),
        "--json",
        str(figures),
    )
    answer: dict[str, Any] = json.loads(figures.read_text())
    return answer


def hostile_requests(bench: Bench) -> dict[str, Any]:
    """10,000 hostile requests: no 5xx, no crash, bounded memory."""
    return _without_failure(bench, "hostile")


def batch_scoring(bench: Bench) -> dict[str, Any]:
    """10 million rows, Parquet to Parquet, at 0.6 and more of a bare prediction in memory and under 4 GB;
    killed three times, each row once."""
    return _without_failure(bench, "batch", "--rows", "10000000")


def _without_failure(bench: Bench, what: str, *more: str) -> dict[str, Any]:
    """The figures of a benchmark that says itself what failed, in a world that both share."""
    file = bench.folder / f"{what}.json"
    world = str(bench.folder / "world")
    options = ("--folder", world, "--json", str(file), *more)
    with suppress(subprocess.CalledProcessError):  # what failed is in the figures
        bench.switchyard(bench.folder / what, "bench", what, *options)
    figures: dict[str, Any] = json.loads(file.read_text())
    return figures | {"reached": not figures["failed"]}


def same_release(bench: Bench) -> dict[str, Any]:
    """Same seed, same input: the same release and bit-equal scores, in a new home and without git."""
    bare = bench.home("checkout")
    ignored = shutil.ignore_patterns(".git", ".venv", ".switchyard", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, bare, ignore=ignored)
    ids, scores = [], []
    for name, checkout in (("same", ROOT), ("same-again", ROOT), ("same-without-git", bare)):
        home = bench.home(name)
        ids.append(demo(home, checkout=checkout)["release_and_deploy"]["release"])
        tables = sorted((home / "lake" / "batch_scores").glob("*.parquet"))
        scores.append(pa.concat_tables(pq.read_table(t) for t in tables))
    same = len(set(ids)) == 1 and all(s.equals(scores[0]) for s in scores)
    return {"releases": ids, "rows": len(scores[0]), "reached": same}


def killed_anywhere(bench: Bench, kills: int = 8) -> dict[str, Any]:
    """SIGKILL at random moments, then once to the end: the same release, nothing half-written left."""
    expected = demo(bench.home("unkilled"))["release_and_deploy"]["release"]
    home, rng = bench.home("killed"), random.Random(7)
    environment = os.environ | {"SWITCHYARD_HOME": str(home)}
    moments = sorted(rng.uniform(3, 80) for _ in range(kills))
    for moment in moments:
        process = subprocess.Popen(
            [*SWITCHYARD, "demo"], env=environment, stdout=subprocess.DEVNULL
        )
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
    figures = demo(home)
    left = [str(p) for p in home.rglob("*.part")]
    release = figures["release_and_deploy"]["release"]
    same = release == expected and figures["replay_and_recompute"]["differences"] == 0
    return {"killed_after_s": [round(m, 1) for m in moments], "half_written": left,
            "release": release, "expected": expected, "reached": same and not left}  # fmt: skip


def _bench(bench: Bench, *arguments: str) -> dict[str, Any]:
    """Figures of ``switchyard bench …``; a run that failed says so in them."""
    figures = bench.folder / f"{arguments[0]}.json"
    figures.unlink(missing_ok=True)
    command = [*SWITCHYARD, "bench", *arguments, "--json", str(figures)]
    done = subprocess.run(command, text=True, capture_output=True, cwd=ROOT)
    if not figures.exists():
        return {"error": (done.stdout + done.stderr)[-1_500:], "reached": False}
    answer: dict[str, Any] = json.loads(figures.read_text())
    return answer


def _serving(bench: Bench, section: str) -> dict[str, Any]:
    """One section of the serving benchmark: every bar of it holds, and no answer was wrong or degraded."""
    answer = _bench(bench, "serving", "--only", section)
    bars = answer.pop("reached", {}) or {}
    fine = bool(bars) and all(bars.values()) and not answer.get("failed")
    return answer | {"bars": bars, "reached": fine}


def serving_closed(bench: Bench) -> dict[str, Any]:
    """Decisions/s of one worker at 8 and 32 connections: 2.5 times the textbook scorer's."""
    return _serving(bench, "closed")


def serving_bulk(bench: Bench) -> dict[str, Any]:
    """Bulk of 25: twice the single endpoint's decisions/s, in the same run."""
    return _serving(bench, "bulk")


def serving_open(bench: Bench) -> dict[str, Any]:
    """At 600 arrivals/s a tenth of the peer's p99; at 1,000/s for 60 s p99 under 10 ms and no error."""
    return _serving(bench, "open")


def serving_hot_terminal(bench: Bench) -> dict[str, Any]:
    """A tenth of all traffic to one terminal: decisions/s within 20 %, p99 within 1.5 times."""
    return _serving(bench, "hot")


def serving_soak(bench: Bench) -> dict[str, Any]:
    """Ten minutes of load: private memory of each worker grows by less than 5 % after warm-up."""
    return _serving(bench, "soak")


def serving_faults(bench: Bench) -> dict[str, Any]:
    """Every fault under load: nothing failed, lost or decided twice, and what each demands besides."""
    answer = _bench(bench, "faults")
    bars = answer.get("reached") or {}
    return answer | {"bars": bars, "reached": bool(bars) and all(bars.values())}


def traffic_plan(bench: Bench) -> dict[str, Any]:
    """Every change of the plan followed by all workers within 1 s under 500/s, no request failed, shadow at
    most 10 % on p99."""
    answer = _bench(bench, "traffic")
    bars = answer.get("reached") or {}
    return answer | {"bars": bars, "reached": bool(bars) and all(bars.values())}


def online_sync(bench: Bench) -> dict[str, Any]:
    """Profiles into the online store: 10 times the rows/s of ``feast materialize``, equal values."""
    return _bench(bench, "online-sync")


def canary_judge(bench: Bench) -> dict[str, Any]:
    """2,000 experiments of equal models, looked at after every 100 of 50,000 decisions: at most 20 rolled back."""
    answer = _bench(bench, "canary")
    return answer | {"reached": "experiments" in answer and not answer["failed"]}


def rollout(bench: Bench) -> dict[str, Any]:
    """Ten blue-green switches at 500 requests/s without a failed one; a promotion killed at every step."""
    answer = _bench(bench, "rollout")
    return answer | {"reached": "switches" in answer and not answer["failed"]}


def drift(bench: Bench) -> dict[str, Any]:
    """200 worlds of 120 days without a change: at most 5 retrainings by drift; alarms and power at 500 and 50,000 rows."""
    answer = _bench(bench, "drift", "--folder", str(bench.folder / "drift"))
    return answer | {"reached": "healthy_seeds" in answer and not answer["failed"]}


BARS: dict[str, Bar] = {
    bar.__name__: bar
    for bar in (
        demo_simulator, demo_handbook, backtest_seven_days, backtest_all_history, replay_100k,
        features, same_release, killed_anywhere, serving_closed, serving_bulk, serving_open,
        serving_hot_terminal, serving_soak, serving_faults, online_sync, hostile_requests,
        batch_scoring, canary_judge, rollout, traffic_plan, drift,
    )
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bars", nargs="*", choices=[*BARS, []], help="default: all")
    parser.add_argument("--again", action="store_true", help="run bars that are in the file, too")
    parser.add_argument("--folder", type=Path, default=ROOT / ".switchyard" / "acceptance")
    parser.add_argument(
        "--handbook", type=Path, default=ROOT.parent / "shared" / "data" / "handbook"
    )
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    results = given.folder / "results.jsonl"
    known = (
        {json.loads(line)["bar"] for line in results.read_text().splitlines()}
        if results.exists()
        else set()
    )
    bench = Bench(given.folder, given.handbook)
    for name in given.bars or BARS:
        if name in known and not given.again:
            print(f"{name}: in {results} already (--again runs it again)")
            continue
        line = json.dumps({"bar": name, **BARS[name](bench)}, default=str)
        with results.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)


if __name__ == "__main__":
    main()
