"""A set of transactions with their vectors and what was known of their verdicts at one moment.

Here: putting together what training, backtest and batch scoring hand to ``learning``. Not here: how a
column is computed (``windows``, ``activity``, ``features``) or how rows are split (``learning.splits``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from switchyard.errors import LakeError
from switchyard.fraud.activity import MISSING
from switchyard.fraud.columns import FEATURES, names
from switchyard.fraud.events import keys_of
from switchyard.lake import write_parquet
from switchyard.learning import evenly
from switchyard.learning.fitting import Rows

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = -1
"""Stands in ``is_fraud`` for a verdict that was not known at ``as_of``."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Dataset:
    """One row per transaction, sorted by event time.

    ``X`` is float64 [n, 50] in the order of FEATURES; ``is_fraud`` int8 (-1: not known at ``as_of``);
    times are int64 microseconds since 1970, ``label_us`` MISSING where there is no verdict.
    """

    transaction_id: pa.ChunkedArray
    customer_id: pa.ChunkedArray
    event_us: npt.NDArray[np.int64]
    label_us: npt.NDArray[np.int64]
    is_fraud: npt.NDArray[np.int8]
    X: npt.NDArray[np.float64]
    as_of: datetime

    def __len__(self) -> int:
        return len(self.event_us)

    @property
    def start(self) -> datetime:
        """Midnight of the first transaction's day."""
        first = _EPOCH + timedelta(microseconds=int(self.event_us[0]))
        return first.replace(hour=0, minute=0, second=0, microsecond=0)

    @property
    def fraud_share(self) -> float:
        """Frauds among the verdicts known at ``as_of``."""
        known = self.is_fraud[self.is_fraud != UNKNOWN]
        return float(known.mean()) if len(known) else float("nan")

    def rows(self) -> Rows:
        """What ``learning`` needs of it; customers as integers."""
        codes = pc.dictionary_encode(self.customer_id.combine_chunks()).indices
        return Rows(
            X=self.X,
            y=self.is_fraud,
            event_us=self.event_us,
            label_us=self.label_us,
            entity=codes.to_numpy(zero_copy_only=False).astype(np.int64),
        )

    def between(self, start: datetime, end: datetime) -> Dataset:
        """The rows with start <= event < end."""
        first, past = ((m - _EPOCH) // timedelta(microseconds=1) for m in (start, end))
        return self.take((self.event_us >= first) & (self.event_us < past))

    def take(self, mask: npt.NDArray[np.bool_]) -> Dataset:
        """The rows that ``mask`` selects."""
        chosen = pa.array(mask)
        return Dataset(
            self.transaction_id.filter(chosen), self.customer_id.filter(chosen), self.event_us[mask],
            self.label_us[mask], self.is_fraud[mask], self.X[mask], self.as_of,
        )  # fmt: skip

    def table(self) -> pa.Table:
        """As Arrow: ids, times, verdict (null: unknown), then the features."""
        verdict = pa.array(self.is_fraud == 1, mask=self.is_fraud == UNKNOWN)
        label = pa.array(self.label_us, mask=self.label_us == MISSING).cast(
            pa.timestamp("us", tz="UTC")
        )
        columns = {
            "transaction_id": self.transaction_id,
            "customer_id": self.customer_id,
            "event_timestamp": pa.array(self.event_us).cast(pa.timestamp("us", tz="UTC")),
            "label_available_at": label,
            "is_fraud": verdict,
        }
        columns |= {name: pa.array(self.X[:, i]) for i, name in enumerate(names(FEATURES))}
        return pa.table(columns).replace_schema_metadata(
            {"as_of": json.dumps(self.as_of.isoformat())}
        )

    def evenly(self, most: int) -> Dataset:
        """At most ``most`` rows, evenly spaced."""
        chosen = np.zeros(len(self), np.bool_)
        chosen[evenly(len(self), most)] = True
        return self.take(chosen)

    def frame(self) -> pd.DataFrame:
        """The features alone, as pandas."""
        import pandas as pd

        return pd.DataFrame(self.X, columns=names(FEATURES))

    def save(self, path: Path) -> None:
        write_parquet(self.table(), path)

    @staticmethod
    def moment_of(path: Path) -> datetime:
        """``as_of`` of what ``save`` wrote, without reading its rows."""
        return _moment_of(pq.read_schema(path))

    @classmethod
    def load(cls, path: Path) -> Dataset:
        """Read what ``save`` wrote. Raises LakeError if it is not there."""
        if not path.exists():
            raise LakeError(f"there is no training set at {path}; materialize 'training_set' first")
        table = pq.read_table(path)
        known = table["is_fraud"].cast(pa.int8())
        return cls(
            transaction_id=table["transaction_id"],
            customer_id=table["customer_id"],
            event_us=_us(table["event_timestamp"]),
            label_us=_us(table["label_available_at"]),
            is_fraud=pc.fill_null(known, UNKNOWN).to_numpy().astype(np.int8),
            X=np.column_stack([table[name].to_numpy() for name in names(FEATURES)]),
            as_of=_moment_of(table.schema),
        )


def dataset_of(
    transactions: pa.Table, labels: pa.Table, X: npt.NDArray[np.float64], as_of: datetime
) -> Dataset:
    """Join transactions and their vectors with the verdicts known before ``as_of``; sorted by event time.

    ``labels`` may hold verdicts of the future: those count as unknown, and their times as not there.
    """
    position = pc.index_in(keys_of(transactions), keys_of(labels))
    label_us = _us(labels["label_available_at"].take(position))
    known = (label_us != MISSING) & (label_us < (as_of - _EPOCH) // timedelta(microseconds=1))
    verdict = pc.fill_null(labels["is_fraud"].take(position).cast(pa.int8()), UNKNOWN).to_numpy()
    return Dataset(
        transaction_id=transactions["transaction_id"],
        customer_id=transactions["customer_id"],
        event_us=_us(transactions["event_timestamp"]),
        label_us=np.where(known, label_us, MISSING),
        is_fraud=np.where(known, verdict, UNKNOWN).astype(np.int8),
        X=X,
        as_of=as_of,
    )


def _moment_of(schema: pa.Schema) -> datetime:
    return datetime.fromisoformat(json.loads(schema.metadata[b"as_of"]))


def _us(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    plain = pc.fill_null(column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()), MISSING)
    return np.asarray(plain.to_numpy())
