"""The fraud lifecycle as assets: one module per stage, one stage per asset group, checks beside the
asset they guard. ``fraud_assets`` assembles them for a range of days."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from assets.fraud import (
    batch,
    evaluation,
    features,
    journal,
    monitoring,
    release,
    training,
    transactions,
)

Definition = dg.AssetsDefinition | dg.AssetChecksDefinition


def fraud_assets(days: dg.PartitionsDefinition) -> Sequence[Definition]:
    """Every asset and check of the lifecycle; daily ones are partitioned by ``days``."""
    return [
        *transactions.assets(days),
        *features.assets(days),
        *training.assets(),
        *evaluation.assets(),
        *release.assets(),
        *batch.assets(days),
        *journal.assets(),
        *monitoring.assets(days),
    ]
