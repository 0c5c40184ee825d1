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

SWITCHYARD = str(Path(sys.executable).with_name("switchyard"))


def demo(home: Path, *options: str) -> dict[str, Any]:
    """Figures of one ``switchyard demo`` in ``home``; the home's processes are stopped afterwards."""
    environment = os.environ | {"SWITCHYARD_HOME": str(home)}
    figures = home.with_suffix(".json")
    try:
        subprocess.run(
            [SWITCHYARD, "demo", "--json", str(figures), *options],
            env=environment, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    finally:
        subprocess.run([SWITCHYARD, "down"], env=environment, check=True, stdout=subprocess.DEVNULL)
    answer: dict[str, Any] = json.loads(figures.read_text())
    return answer


def run(rounds: int = 3, **options: Any) -> dict[str, Any]:
    """Median seconds of ``rounds`` demos, each in a home of its own, by stage and in all."""
    given = [f"--{name}={value}" for name, value in options.items() if value and name != "console"]
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
