"""The journal's price: an append by batch size and fsync policy, a look-up among a million, reading after a kill,
forgetting a customer.

Records are decisions as the engine journals them, with 50 features. Not here: the service (``serving``).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from switchyard.fraud.columns import FEATURES
from switchyard.fraud.footprint import Footprint
from switchyard.fraud.pseudonyms import Pseudonyms
from switchyard.fraud.requests import Transaction
from switchyard.serving.decided import DecidedIndex
from switchyard.serving.index import Key, key_of_decision, mend, sorted_path
from switchyard.serving.journal import Journal, wall_clock_us
from switchyard.serving.ledger import Ledger
from switchyard.serving.rewriting import concerned, rewrite
from switchyard.serving.segments import frame, read_journal, segments

BATCHES = (1, 8, 32)
SECONDS = 2.0
LOOK_UPS = 2_000
_SEED = 7


def run(decisions: int = 1_000_000, **_options: Any) -> dict[str, Any]:
    """Figures by what was measured; the journal lies in the temporary folder's file system."""
    with tempfile.TemporaryDirectory() as folder:
        figures = appends(Path(folder) / "appends") | ledger(Path(folder) / "ledger")
        return figures | look_ups(Path(folder) / "look-ups", decisions)


# ---------------------------------------------------------------- appending


def appends(folder: Path) -> dict[str, Any]:
    """Records per second and microseconds per call, for each policy and batch size."""
    records, keys = _decisions(0, 2_000)
    found: dict[str, Any] = {"record_bytes": len(frame(records[0]))}
    for size in BATCHES:
        batch = records[:size]
        encoding = _timed(lambda batch=batch: [frame(r) for r in batch], seconds=0.5)
        found[f"encoding_{size}_us_p50"] = _us(encoding, 50)
        for policy in ("never", "always"):
            with Journal(folder / f"{policy}{size}", fsync=policy == "always") as journal:
                seconds = _timed(lambda j=journal, b=batch, k=keys[:size]: j.append(b, k))
            found[f"append_{size}_fsync_{policy}"] = {
                "records_per_s": round(size * len(seconds) / sum(seconds)),
                "us_p50": _us(seconds, 50),
                "us_p99": _us(seconds, 99),
            }
    return found


def ledger(folder: Path) -> dict[str, Any]:
    """What each decision pays: hold and let go, and asking a batch of 32 for what is unsettled."""
    held = Ledger(folder)
    names = [f"t{n}" for n in range(32)]

    def hold() -> None:
        for name in names:
            held.hold(name)
        for name in names:
            held.let_go(name)

    holding = _timed(hold, seconds=1.0)
    asking = _timed(lambda: held.unsettled(names, 0), seconds=1.0)
    held.close()
    return {
        "hold_and_let_go_us": _us(holding, 50) / len(names),
        "ask_unsettled_batch_of_32_us": _us(asking, 50),
    }


# ---------------------------------------------------------------- finding and reading again


def look_ups(folder: Path, decisions: int) -> dict[str, Any]:
    """Look-ups among so many decisions of 24 hours, and what a restart after a kill has to read."""
    written = _write(folder, decisions)
    held = Ledger(folder)
    rng = np.random.default_rng(_SEED)
    known = [f"t{n}" for n in rng.integers(0, decisions, LOOK_UPS)]
    now_us = wall_clock_us()
    started = time.perf_counter()
    held.look_up(known[:1], now_us)
    first = time.perf_counter() - started
    time.sleep(1.1)  # a folder that has not changed for a second is not listed again
    hits = [_once(lambda n=name: held.look_up([n], now_us)) for name in known]
    misses = [_once(lambda n=name: held.look_up([f"x{n}"], now_us)) for name in known]
    batches = [
        _once(lambda s=start: held.look_up(known[s : s + 32], now_us))
        for start in range(0, LOOK_UPS - 32, 32)
    ]
    held.close()
    index = DecidedIndex(folder)
    ids = [f"{int(name[1:]):032x}" for name in known[:500]]
    index.newest(decision_id=ids[0])
    by_id = [_once(lambda d=name: index.newest(decision_id=d)) for name in ids]
    return {
        "decisions": decisions,
        "segments": len(segments(folder)),
        "journal_bytes": written,
        "first_look_up_ms": round(first * 1e3, 2),
        "look_up_known_us": {"p50": _us(hits, 50), "p99": _us(hits, 99)},
        "look_up_unknown_us": {"p50": _us(misses, 50), "p99": _us(misses, 99)},
        "look_up_32_known_us": {"p50": _us(batches, 50), "p99": _us(batches, 99)},
        "find_by_decision_id_us": {"p50": _us(by_id, 50), "p99": _us(by_id, 99)},
        **_restart(folder),
        **_forgetting(folder, decisions),
    }


def _restart(folder: Path) -> dict[str, Any]:
    """Mending one full segment as a kill leaves it, and reading every record of four."""
    (segment, *_) = segments(folder)
    sorted_path(segment).unlink()
    with segment.open("ab") as file:
        file.write(b"torn")
    size = segment.stat().st_size
    started = time.perf_counter()
    (mended,) = mend(folder)
    mending = time.perf_counter() - started
    assert mended.cut is not None
    assert mended.cut.lost_bytes == 4
    started, count = time.perf_counter(), 0
    for _ in zip(range(200_000), read_journal(folder), strict=False):
        count += 1
    reading = time.perf_counter() - started
    return {
        "restart_scan_of_one_segment_s": round(mending, 2),
        "restart_scan_mb_per_s": round(size / mending / 1e6),
        "read_records_per_s": round(count / reading),
    }


def _forgetting(folder: Path, decisions: int) -> dict[str, Any]:
    """Finding what belongs to one customer of 5,000, which lines that concerns, and writing a segment anew."""
    every, found = segments(folder), Footprint("c7")
    finding = _once(lambda: [found.take_segment(segment) for segment in every])
    searching = _once(lambda: [concerned(segment, found.concerns) for segment in every])
    hidden, size = Pseudonyms.fresh(), every[0].stat().st_size
    writing = _once(
        lambda: rewrite(every[0], found.concerns, lambda record: found.left_of(record, hidden))
    )
    return {
        "forgetting_finds_decisions_per_s": round(decisions / finding),
        "forgetting_searches_decisions_per_s": round(decisions / searching),
        "forgetting_rewrites_mb_per_s": round(size / writing / 1e6),
    }


def _write(folder: Path, decisions: int) -> int:
    """That many decisions with ids of their own in full segments; the bytes written."""
    records, _ = _decisions(0, 1_000)
    body = frame(records[0])[9:-1]
    with Journal(folder) as journal:
        for start in range(0, decisions, 1_000):
            numbers = range(start, min(start + 1_000, decisions))
            names = [(f"t{n}", f"{n:032x}") for n in numbers]
            lines = [
                body.replace(b'"t0"', b'"%b"' % t.encode())
                .replace(b'"c0"', b'"c%d"' % (n % 5_000))
                .replace(records[0]["decision_id"].encode(), d.encode())
                for n, (t, d) in zip(numbers, names, strict=True)
            ]
            journal.append(lines, [key_of_decision(*name) for name in names])
    return sum(segment.stat().st_size for segment in segments(folder))


def _decisions(start: int, count: int) -> tuple[list[dict[str, Any]], list[Key]]:
    rng = np.random.default_rng(_SEED)
    now_us = wall_clock_us()
    records = [
        {
            "type": "decision",
            "decision_id": f"{n:032x}",
            "transaction": Transaction(
                f"t{n}", f"c{n % 5000}", f"s{n % 2000}", 1234 + n, "EUR", now_us, "FR", "FR",
                f"d{n % 100}", "pos", "5411",
            ),
            "received_at": now_us,
            "score": float(rng.random()),
            "decision": "allow",
            "reasons": [],
            "release": "0" * 32,
            "variant": "champion",
            "degraded": [],
            "latency_ms": 1.234,
            "vector": [float(v) for v in rng.normal(100, 30, len(FEATURES)).round(6)],
            "epoch": "0" * 16,
            "customer_profile_day": 20_500,
            "terminal_profile_day": 20_500,
            "customer_seq_seen": n,
            "terminal_seq_seen": n,
        }
        for n in range(start, start + count)
    ]  # fmt: skip
    return records, [key_of_decision(f"t{n}", f"{n:032x}") for n in range(start, start + count)]


# ---------------------------------------------------------------- timing


def _timed(call: Callable[[], object], seconds: float = SECONDS) -> list[float]:
    """Seconds of each call, for so many seconds."""
    found: list[float] = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        found.append(_once(call))
    return found


def _once(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _us(seconds: Sequence[float], percent: int) -> float:
    return round(statistics.quantiles(seconds, n=100)[percent - 1] * 1e6, 1)
