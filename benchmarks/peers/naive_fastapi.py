"""Peer to beat: the textbook online scorer, as most teams first write it.

FastAPI + pydantic request, one ``HGETALL`` per request against Redis, features merged in a Python dict,
``xgboost.DMatrix`` built per request; no explanation, no decision log, no idempotency. ``seed`` writes one
hash of 44 random features per customer and trains 500 trees of depth 6 on 50 columns of noise: the point of
comparison is cost per decision, not quality. Run::

    python -m benchmarks.peers.naive_fastapi seed  --redis redis://127.0.0.1:6379 --model model.ubj
    python -m benchmarks.peers.naive_fastapi serve --redis redis://127.0.0.1:6379 --model model.ubj --port 3101
"""

import argparse
from typing import Any

import numpy as np
import xgboost as xgb
from pydantic import BaseModel

STORED = [f"f{i}" for i in range(44)]


class Transaction(BaseModel):
    """The request as the textbook types it."""

    transaction_id: str
    customer_id: int
    terminal_id: int
    amount: float
    event_timestamp: str


def features_of(tx: Transaction, stored: dict[bytes, bytes]) -> list[float]:
    """The 44 stored features, then 6 of the request."""
    hour = int(tx.event_timestamp[11:13])
    features = [float(stored.get(k.encode(), 0.0)) for k in STORED]
    return [*features, tx.amount, hour, hour < 7, tx.amount / 50.0, tx.terminal_id, 1.0]


def load_model(path: str) -> xgb.Booster:
    """The model, scoring with one thread."""
    model = xgb.Booster(model_file=path)
    model.set_param({"nthread": 1})
    return model


def seed(redis_url: str, customers: int, model_path: str) -> None:
    """Write the stored features and train the model."""
    import redis

    rng = np.random.default_rng(0)
    with redis.Redis.from_url(redis_url) as r:
        pipe = r.pipeline(transaction=False)
        for c in range(customers):
            values = map(float, rng.normal(size=44))
            pipe.hset(f"user:{c}:features", mapping=dict(zip(STORED, values, strict=True)))
        pipe.execute()
    X = rng.normal(size=(50_000, 50)).astype("float32")
    y = (X[:, 0] * X[:, 1] + X[:, 2] > 1.5).astype(int)
    params = {"max_depth": 6, "eta": 0.1, "objective": "binary:logistic"}
    xgb.train(params, xgb.DMatrix(X, y), 500).save_model(model_path)


def build_app(redis_url: str, model_path: str) -> Any:
    """The FastAPI application with its one route."""
    import redis.asyncio as aioredis
    from fastapi import FastAPI

    app = FastAPI()
    r = aioredis.Redis.from_url(redis_url)
    model = load_model(model_path)

    @app.post("/v1/predict")
    async def predict(tx: Transaction) -> dict[str, Any]:
        stored = await r.hgetall(f"user:{tx.customer_id}:features")  # type: ignore[misc]
        features = features_of(tx, stored)
        score = float(model.predict(xgb.DMatrix(np.array([features])))[0])
        return {"score": score, "decision": "block" if score > 0.7 else "allow"}

    return app


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("command", choices=["seed", "serve"])
    p.add_argument("--redis", default="redis://127.0.0.1:6379")
    p.add_argument("--customers", type=int, default=5000)
    p.add_argument("--model", default="model.ubj")
    p.add_argument("--port", type=int, default=3101)
    a = p.parse_args()
    if a.command == "seed":
        seed(a.redis, a.customers, a.model)
    else:
        import uvicorn

        app = build_app(a.redis, a.model)
        uvicorn.run(app, port=a.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
