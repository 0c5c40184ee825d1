"""What changed in the asset graph or in a score shows as a diff that somebody has to read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden.regenerate import COMMAND, FOLDER, asset_graph, openapi, scored_transactions

HOW = f"it differs from the golden file: if that is meant, run `{COMMAND}` and review the diff"


def test_the_asset_graph_is_the_reviewed_one(tmp_path: Path) -> None:
    found = asset_graph(tmp_path)

    assert found == (FOLDER / "asset_graph.json").read_text(encoding="utf-8"), HOW


def test_the_openapi_document_is_the_reviewed_one() -> None:
    assert openapi() == (FOLDER / "openapi.json").read_text(encoding="utf-8"), HOW


def test_twenty_transactions_are_scored_as_reviewed(tmp_path: Path) -> None:
    reviewed = json.loads((FOLDER / "scored_transactions.json").read_text(encoding="utf-8"))

    found = scored_transactions(tmp_path)

    assert len(reviewed) == 20
    assert sum(row["is_fraud"] for row in reviewed) == 10
    for row, expected in zip(found, reviewed, strict=True):
        score = pytest.approx(expected["score"], abs=1e-6)  # the last bits are the processor's
        assert row == expected | {"score": score}, HOW
