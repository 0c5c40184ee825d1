"""A client of the decision service, to copy: it asks again under the same id until it has an answer.

Asking again is safe: the same id with the same body gets the same decision, however often it is sent.

    python examples/client.py http://127.0.0.1:3000 [API_KEY]
"""

from __future__ import annotations

import random
import sys
import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx

PATIENCE_S = 5.0
"""How long to ask again before giving up."""
AGAIN = {408, 429, 503}
"""Statuses that may be another one a moment later."""


class FraudClient:
    """Decides transactions by the service at ``url``; ``key`` is an API key of the role 'score'."""

    def __init__(self, url: str, key: str | None = None, patience_s: float = PATIENCE_S) -> None:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=patience_s)
        self._patience_s = patience_s

    def __enter__(self) -> FraudClient:
        return self

    def __exit__(self, *_error: object) -> None:
        self._http.close()

    def decide(self, transaction: dict[str, Any]) -> dict[str, Any]:
        """The decision. Raises httpx.HTTPStatusError for what is refused, and what the last try raised."""
        deadline = time.monotonic() + self._patience_s
        pause_s = 0.05
        while True:
            try:
                answer = self._http.post("/v1/predict", json=transaction)
                if answer.status_code not in AGAIN or time.monotonic() + pause_s > deadline:
                    answer.raise_for_status()
                    decision: dict[str, Any] = answer.json()
                    return decision
            except httpx.TransportError:
                if time.monotonic() + pause_s > deadline:
                    raise
            time.sleep(pause_s * random.uniform(0.5, 1.0))  # not all clients at the same moment
            pause_s = min(2 * pause_s, 1.0)


if __name__ == "__main__":
    with FraudClient(*sys.argv[1:3]) as client:
        decision = client.decide(
            {
                "transaction_id": str(uuid4()),
                "customer_id": "C000012",
                "terminal_id": "T00034",
                "amount": "57.16",
                "event_timestamp": datetime.now(UTC).isoformat(),
                "channel": "pos",
            }
        )
    print(decision["decision"], decision["score"], [r["code"] for r in decision["reasons"]])
