"""Stage 'monitoring': what the days say of data, model, system and skew, as assets with checks.

One module per level, each with ``assets(days)``; what they measure is ``switchyard``'s.
"""

from __future__ import annotations

import dagster as dg

from assets.fraud.monitoring import data, model, skew, system

GROUP = "monitoring"


def assets(days: dg.PartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The stage's assets, partitioned by ``days``."""
    return [
        *data.assets(days, GROUP),
        *model.assets(days, GROUP),
        *system.assets(days, GROUP),
        *skew.assets(days, GROUP),
    ]
