"""The alert rules: checked and tested by promtool, and every figure in them is one that the service shows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from switchyard.serving.exposition import SCORE_BINS
from switchyard.serving.metrics import COUNTED
from switchyard.serving.observed import OBSERVED

MONITORING = Path(__file__).resolve().parents[2] / "deploy" / "monitoring"
TESTS = sorted(path.name for path in MONITORING.glob("*_test.yml"))


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        words = "promtool is not on the PATH: install Debian's package 'prometheus'"
        if os.environ.get("CI"):
            pytest.fail(words)
        pytest.skip(words)
    return found


def rules() -> list[dict[str, str]]:
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=MONITORING, capture_output=True, text=True, check=False)


def test_the_rules_and_the_configuration_are_prometheus_own_language(promtool: str) -> None:
    checked = run(promtool, "check", "rules", "alerts.yml")
    config = run(promtool, "check", "config", "prometheus.yml")

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert config.returncode == 0, config.stdout + config.stderr


@pytest.mark.parametrize("file", TESTS)
def test_each_rule_fires_when_it_should_and_only_then(promtool: str, file: str) -> None:
    tested = run(promtool, "test", "rules", file)

    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_every_alert_has_a_test_in_which_it_fires() -> None:
    fired = set()
    for file in TESTS:
        for test in yaml.safe_load((MONITORING / file).read_text())["tests"]:
            for expected in test.get("alert_rule_test", ()):
                fired |= {expected["alertname"]} if expected.get("exp_alerts") else set()

    assert {rule["alert"] for rule in rules() if "alert" in rule} == fired


def test_every_figure_in_a_rule_is_one_that_the_service_shows() -> None:
    used = {name for rule in rules() for name in re.findall(r"\bswitchyard_\w+", rule["expr"])}

    shown = {family.name for family in (*COUNTED, *OBSERVED, SCORE_BINS)}
    shown |= {f"{family.name}_bucket" for family in COUNTED if family.edges}
    assert used
    assert used <= shown
