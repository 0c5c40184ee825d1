"""Pictures: PNG of a readable size, the same bytes for the same rows, edge cases drawn too."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from switchyard.learning import pictures


def make_scored(n: int = 1_500) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = (rng.random(n) < 0.05).astype(np.int64)
    return y, 1 / (1 + np.exp(4 - 5 * y + rng.normal(size=n)))


def looks_drawn(png: bytes) -> bool:
    """Large enough to read, and not of one colour."""
    image = Image.open(io.BytesIO(png))
    return (
        image.width > 500
        and image.height > 350
        and len(image.convert("RGB").getcolors(1 << 24)) > 20
    )


def test_curves_are_drawn_with_the_same_bytes_for_the_same_rows():
    y, score = make_scored()

    first = pictures.precision_recall_curve(y, {"model": score, "baseline": score**2})

    assert looks_drawn(first)
    assert pictures.precision_recall_curve(y, {"model": score, "baseline": score**2}) == first


def test_scores_of_exactly_0_and_1_are_drawn():
    y, score = make_scored()
    score[:5], score[5:10] = 0.0, 1.0

    assert looks_drawn(pictures.score_histogram(y, score))
    assert looks_drawn(pictures.calibration_curve(y, score))


def test_rows_without_a_fraud_are_drawn():
    y, score = make_scored()

    assert looks_drawn(pictures.precision_recall_curve(np.zeros_like(y), {"model": score}))
    assert looks_drawn(pictures.score_histogram(np.zeros_like(y), score))


def test_the_timeline_of_a_rollout_is_drawn_with_its_changes():
    when = [datetime(2026, 3, 1, tzinfo=UTC) + timedelta(hours=6 * n) for n in range(8)]
    figures = {
        "share": [0, 0.05, *[0.2] * 5, 1],
        "evidence": [0.1] * 8,
        "matured": range(0, 80, 10),
    }

    plain = pictures.rollout_timeline(when, **figures, matured_needed=50, changes={})
    marked = pictures.rollout_timeline(when, **figures, matured_needed=50, changes={when[1]: "5 %"})

    assert looks_drawn(plain)
    assert marked != plain


def test_a_change_of_the_world_is_drawn_with_its_marks():
    days = [date(2026, 3, n) for n in range(1, 20)]
    curve = {day: 0.8 - 0.02 * n for n, day in enumerate(days)}
    level = {"all knowing": (days[10], days[-1], 0.9)}

    plain = pictures.regime_timeline(curve, curve, levels={}, changes={})
    marked = pictures.regime_timeline(
        curve, curve, levels=level, changes={datetime(2026, 3, 9, tzinfo=UTC): "tactics change"}
    )

    assert looks_drawn(plain)
    assert marked != plain


# shap builds its colour maps with setters that matplotlib is going to deprecate.
@pytest.mark.filterwarnings(
    "ignore:The set_(bad|over|under) function:PendingDeprecationWarning:shap"
)
def test_the_shap_summary_is_drawn_with_missing_values(
    make_rows: Callable[..., tuple], columns: list[str]
):
    from matplotlib import pyplot

    X, _ = make_rows(300)
    contributions = np.random.default_rng(0).normal(size=(300, len(columns) + 1))

    png = pictures.shap_summary(contributions, X, columns)

    assert looks_drawn(png)
    assert pyplot.get_fignums() == []
