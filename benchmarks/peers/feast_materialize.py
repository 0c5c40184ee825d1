"""Peer of the online sync: ``feast materialize``, as anybody's own process runs it.

Run: ``python -m benchmarks.peers.feast_materialize START END`` with the variables of ``switchyard env``; prints
the seconds that Feast took, its import and its opening left out.
"""

import sys
import time
import warnings
from datetime import datetime
from pathlib import Path

REPO = Path(__file__).resolve().parents[2] / "feature_repo"


def main() -> None:
    from feast import FeatureStore

    start, end = map(datetime.fromisoformat, sys.argv[1:])
    warnings.simplefilter("ignore", DeprecationWarning)  # ibis 12 calls what DuckDB 2 has renamed
    store = FeatureStore(repo_path=str(REPO))
    store.list_feature_views()
    started = time.perf_counter()
    store.materialize(start, end)
    print(f"\n{time.perf_counter() - started}")


if __name__ == "__main__":
    main()
