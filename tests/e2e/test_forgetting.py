"""A customer is forgotten while the service runs: nobody waits, nothing of theirs is left in its memory or on disk."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime, timedelta

from switchyard.fraud.bodies import transaction_body
from switchyard.fraud.forget import forget
from switchyard.fraud.forget_requests import ask
from switchyard.fraud.online import cold_store_of, online_store_of
from switchyard.fraud.recompute import recompute_journal
from switchyard.lake import Lake
from switchyard.serving import valkey
from switchyard.settings import load_settings
from tests.served import Served
from tests.streams import make_transaction

GONE = "card-4711-0815"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_customer_is_forgotten_while_the_service_decides(served: Served) -> None:
    settings = load_settings(home=served.home)
    first = [decide(served, n, GONE if n % 2 else "card-that-stays") for n in range(8)]

    with closing(online_store_of(valkey.address_of(settings).url)) as store:
        cold = cold_store_of(None, settings.cold_store)
        name = ask(settings, GONE, who="dpo", why="request 17", now=NOON)
        done = forget(settings, name, store, cold, now=NOON)

    again = served.client.post("/v1/explain", json={"decision_id": first[1]["decision_id"]})
    other = served.client.post("/v1/explain", json={"decision_id": first[2]["decision_id"]})
    assert decide(served, 8, "card-that-stays")["degraded"] == []
    assert decide(served, 2, "card-that-stays") == first[2]
    assert (again.status_code, other.json()["equal"]) == (404, True)
    assert "its customer was forgotten" in again.text
    assert {line.place for line in done.removed} >= {"journal", "online store", "lake/decisions"}
    recomputed = recompute_journal(settings, Lake(settings.lake))
    assert recomputed.differences == ()
    assert served.client.get("/readyz").status_code == 200


def decide(served: Served, number: int, customer_id: str) -> dict[str, object]:
    row = make_transaction(
        transaction_id=f"forgetting-{number}",
        customer_id=customer_id,
        terminal_id="s-of-both",
        event_timestamp=NOON + timedelta(minutes=number),
    )
    return dict(served.client.post("/v1/predict", json=transaction_body(row)).json())
