"""A second opinion on the closed loop: Debian's ``wrk``, where it is installed.

Not here: our own generator (``load``), which needs nothing installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

from benchmarks.load import AMOUNTS, CUSTOMERS, TERMINALS

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3}
_SCRIPT = """
local i, run = 0, "%(run)s"
local moment = os.date("!%%Y-%%m-%%dT%%H:%%M:%%SZ")
function request()
  i = i + 1
  if i %% 50 == 0 then moment = os.date("!%%Y-%%m-%%dT%%H:%%M:%%SZ") end
  local body = string.format(
    '{"transaction_id":"%%s-%%d","customer_id":%(quote)s%%d%(quote)s,"terminal_id":%(quote)s%%d%(quote)s,' ..
    '"amount":%%d,"event_timestamp":"%%s"}', run, i, i * 7919 %% %(customers)d,
    i * 104729 %% %(terminals)d, 5 + i %% %(amounts)d, moment)
  return wrk.format("POST", nil, {["content-type"] = "application/json"}, body)
end
"""


def available() -> bool:
    return shutil.which("wrk") is not None


def measure(url: str, connections: int, seconds: float, *, int_ids: bool) -> dict[str, float]:
    """Requests/s, p99 in ms and answers that were not 2xx or never came, by one thread of ``wrk``."""
    values = {
        "run": uuid.uuid4().hex[:12], "quote": "" if int_ids else '"', "customers": CUSTOMERS,
        "terminals": TERMINALS, "amounts": AMOUNTS,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "transactions.lua"
        script.write_text(_SCRIPT % values)
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--latency", "-s"]
        done = subprocess.run([*command, str(script), url], capture_output=True, text=True)
    return read(done.stdout)


def read(said: str) -> dict[str, float]:
    """The figures of what ``wrk --latency`` printed.

    >>> read("  99%    7.50ms\\nRequests/sec:   1500.25\\n  Non-2xx or 3xx responses: 3")
    {'per_second': 1500.25, 'p99_ms': 7.5, 'bad': 3}
    """
    rate = re.search(r"Requests/sec:\s*([\d.]+)", said)
    tail = re.search(r"\b99%\s+([\d.]+)(us|ms|s)\b", said)
    if rate is None or tail is None:
        raise ValueError(f"wrk said something else than usual: {said!r}")
    errors = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", said
    )
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    return {
        "per_second": float(rate[1]),
        "p99_ms": round(float(tail[1]) * _UNITS[tail[2]], 2),
        "bad": int(bad[1] if bad else 0) + sum(map(int, errors.groups() if errors else ())),
    }
