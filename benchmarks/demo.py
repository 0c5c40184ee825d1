"""How long the whole lifecycle takes after set-up: the demo in a fresh home, several times."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SWITCHYARD = [sys.executable, "-m", "orchestration.cli"]


def demo(home: Path, *options: str, checkout: Path = ROOT) -> dict[str, Any]:
    """Figures of one ``switchyard demo`` in ``home``; the home's processes are stopped afterwards.

    ``checkout``: the folder whose code runs.
    """
    environment = os.environ | {"SWITCHYARD_HOME": str(home), "PYTHONPATH": str(checkout)}
    how: dict[str, Any] = {
        "env": environment, "cwd": checkout, "check": True, "stdout": subprocess.DEVNULL,
    }  # fmt: skip
    figures = home.with_suffix(".json")
    try:
        subprocess.run([*SWITCHYARD, "demo", "--json", str(figures), *options], **how)
    finally:
        subprocess.run([*SWITCHYARD, "down"], **how)
    answer: dict[str, Any] = json.loads(figures.read_text())
    return answer


def run(rounds: int = 3, **options: Any) -> dict[str, Any]:
    """Median seconds of ``rounds`` demos, each in a home of its own, by stage and in all."""
    options.pop("console", None)
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value]
    with tempfile.TemporaryDirectory() as folder:
        runs = [demo(Path(folder) / f"home{i}", *given) for i in range(rounds)]
    stages = runs[0]["seconds"]
    return {
        "rounds": rounds,
        "seconds_in_all_median": statistics.median(r["seconds_in_all"] for r in runs),
        "seconds_by_stage_median": {
            s: statistics.median(r["seconds"][s] for r in runs) for s in stages
        },
        "transactions": runs[0]["ingest_transactions"]["transactions"],
        "releases": sorted({r["release_and_deploy"]["release"] for r in runs}),
    }
