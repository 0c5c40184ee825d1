"""Peer: the same textbook scorer in the plain ``@bentoml.api`` way, with BentoML's default settings.

It reads what ``naive_fastapi seed`` wrote. ``PEER_REDIS`` and ``PEER_MODEL`` say where store and model are.
Run: ``bentoml serve benchmarks.peers.plain_bento:PlainFraud --port 3102``.
"""

import os
from typing import Any

import bentoml
import numpy as np
import redis
import xgboost as xgb

from benchmarks.peers.naive_fastapi import Transaction, features_of, load_model


@bentoml.service
class PlainFraud:
    """One method, as BentoML's own tutorial has it: typed input, a dictionary back."""

    def __init__(self) -> None:
        self.redis = redis.Redis.from_url(os.environ["PEER_REDIS"])
        self.model = load_model(os.environ["PEER_MODEL"])

    @bentoml.api(route="/v1/predict")
    def predict(self, transaction: Transaction) -> dict[str, Any]:
        stored: Any = self.redis.hgetall(f"user:{transaction.customer_id}:features")
        features = features_of(transaction, stored)
        score = float(self.model.predict(xgb.DMatrix(np.array([features])))[0])
        return {"score": score, "decision": "block" if score > 0.7 else "allow"}
