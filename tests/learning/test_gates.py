"""What gates said is remembered until what they judged is made anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchyard.errors import ReleaseError
from switchyard.learning.gates import PASSED, forget_gates, note_gates, refuse_unless_passed


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "training" / "gates.json"


def test_a_candidate_that_passed_every_gate_is_not_refused(file: Path) -> None:
    note_gates(file, {"data": PASSED})
    note_gates(file, {"model": PASSED})

    refuse_unless_passed(file, ["data", "model"])


def test_a_failed_gate_is_named_with_its_reason(file: Path) -> None:
    note_gates(file, {"data": PASSED, "model": "worse than the champion"})

    with pytest.raises(ReleaseError, match="model failed: worse than the champion;"):
        refuse_unless_passed(file, ["data", "model"])


def test_a_candidate_that_was_made_anew_has_passed_nothing(file: Path) -> None:
    note_gates(file, {"data": PASSED, "model": PASSED})

    forget_gates(file, ["model"])

    with pytest.raises(ReleaseError, match="gates, so there is no release of it; model was not"):
        refuse_unless_passed(file, ["data", "model"])


def test_a_home_that_trained_nothing_is_refused_by_every_gate(file: Path) -> None:
    with pytest.raises(ReleaseError, match="data was not asked; model was not asked"):
        refuse_unless_passed(file, ["data", "model"])
