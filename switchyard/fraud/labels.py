"""What was known of verdicts at a moment: the one door through which anything asks for labels.

A label does not exist before its ``label_available_at``. Not here: how labels come in (``landing``,
``compaction``), or what follows from them.
"""

from __future__ import annotations

from datetime import date, datetime

import pyarrow as pa
import pyarrow.compute as pc

from switchyard.fraud.columns import LABEL, arrow_schema
from switchyard.lake import Lake


def labels_as_of(lake: Lake, first: date, last: date, as_of: datetime) -> pa.Table:
    """The verdicts on transactions of the event days ``first`` to ``last`` that were known at ``as_of``.

    LABEL columns, one row per transaction that has one; none known or none landed: no row.
    """
    paths = lake.paths("labels", first, last)
    if not paths:
        return arrow_schema(LABEL).empty_table()
    labels = lake.read("labels", first, last)
    known = pc.less_equal(labels["label_available_at"], pa.scalar(as_of))
    return labels.filter(pc.fill_null(known, False))
