"""Replies as the engine makes them. A factory only, no tests."""

from __future__ import annotations

from typing import Any

from switchyard.serving.replies import Reply


def make_reply(**overrides: Any) -> Reply:
    content: dict[str, Any] = {
        "decision_id": "d",
        "transaction_id": "t",
        "score": 0.02,
        "decision": "allow",
        "reasons": [],
        "release": "r",
        "variant": "champion",
        "degraded": [],
        "latency_ms": 1.5,
    }
    return Reply(**(content | overrides))
