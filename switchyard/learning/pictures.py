"""Pictures of a model on its test rows, and of its rollout, as PNG bytes.

Drawn without a display. Not here: figures that a gate judges (``metrics``), or where a picture is shown.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from switchyard.learning import Floats, Verdicts, evenly
from switchyard.learning.calibration import reliability
from switchyard.learning.metrics import Ranking

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_ROWS = 1_000
"""Rows that a SHAP summary shows; more hide each other."""
MOST_COLUMNS = 15
DPI = 110
COLOURS = ("#1f5fa8", "#d9822b", "#3d8b57", "#8456a8")
GREY = "#8a8f98"


def precision_recall_curve(y: Verdicts, scores: Mapping[str, Floats]) -> bytes:
    """Precision against recall of each named model on the same rows, and the share of frauds."""
    figure, axes = _axes("Precision and recall on the test window", "Recall", "Precision")
    for (name, score), colour in zip(scores.items(), COLOURS, strict=False):
        ranking = Ranking(y, score)
        recall, precision = ranking.curve()
        label = f"{name} (average precision {ranking.average_precision():.3f})"
        axes.step(recall, precision, where="pre", color=colour, label=label, linewidth=1.8)
    share = float(np.mean(y > 0))
    axes.axhline(share, color=GREY, linestyle=":", label=f"share of frauds ({share:.4f})")
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(frameon=False, loc="best", fontsize=8)
    return _png(figure)


def calibration_curve(y: Verdicts, score: Floats) -> bytes:
    """Share of frauds against mean score in bins of equal width; a dot's area tells its rows."""
    table = reliability(y, score)
    held = table.rows > 0
    title = f"Calibration on the test window (expected error {table.error:.4f})"
    figure, axes = _axes(title, "Mean score in the bin", "Share of frauds in the bin")
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="perfect")
    mean, share, rows = table.mean_score[held], table.fraud_share[held], table.rows[held]
    spread = 1.96 * np.sqrt(np.clip(share * (1 - share), 1e-9, None) / rows)
    axes.errorbar(mean, share, spread, color=COLOURS[0], elinewidth=1, capsize=2, linewidth=1.2)
    axes.scatter(mean, share, s=12 + 18 * np.log10(rows), color=COLOURS[0], label="model, 95 %")
    for x, height, count in zip(mean, share, rows, strict=True):
        axes.annotate(
            f"{int(count):,}",
            (x, height),
            (7, 5),
            textcoords="offset points",
            fontsize=7,
            color=GREY,
        )
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.05))
    axes.legend(frameon=False, loc="upper left", fontsize=8)
    return _png(figure)


def score_histogram(y: Verdicts, score: Floats) -> bytes:
    """Scores of frauds and of genuine rows, in bins of log-odds, counted on a logarithmic scale."""
    figure, axes = _axes("Scores on the test window", "Score", "Rows")
    edges = np.linspace(-11.5, 7.0, 60).tolist()
    logit = np.clip(
        np.log(np.clip(score, 1e-300, 1)) - np.log1p(-np.clip(score, 0, 1 - 1e-16)), -11.4, 6.9
    )
    for name, kind, colour in (("genuine", y <= 0, COLOURS[0]), ("fraud", y > 0, COLOURS[1])):
        axes.hist(
            logit[kind], edges, alpha=0.65, color=colour, label=f"{name} ({int(kind.sum()):,})"
        )
    marks = np.array([1e-4, 1e-3, 1e-2, 0.1, 0.5, 0.9, 0.99])
    axes.set_xticks(np.log(marks / (1 - marks)), [f"{m:g}" for m in marks])
    axes.set_yscale("log", nonpositive="clip")
    axes.legend(frameon=False, fontsize=8)
    return _png(figure)


def sample_rows(X: Floats) -> Floats:
    """At most MOST_ROWS rows, evenly spaced, for a SHAP summary."""
    return X[evenly(len(X), MOST_ROWS)]


def shap_summary(contributions: Floats, X: Floats, columns: Sequence[str]) -> bytes:
    """SHAP's summary of contributions float64[n, k + 1] (bias last) over rows float64[n, k].

    Each dot is a row: how far a column pushed its log-odds, coloured by the column's value.
    """
    import matplotlib.pyplot as plt
    import shap

    plt.switch_backend("Agg")
    figure = plt.figure()
    try:
        shap.summary_plot(
            contributions[:, :-1],
            features=X,
            feature_names=list(columns),
            max_display=MOST_COLUMNS,
            show=False,
            rng=np.random.default_rng(0),
        )
        plt.title("What moves the score, strongest first", fontsize=13, loc="left")
        plt.xlabel("Contribution to the log-odds of fraud (SHAP value)")
        return _png(figure, tight=True)
    finally:
        plt.close(figure)


def rollout_timeline(
    when: Sequence[datetime],
    *,
    share: Sequence[float],
    evidence: Sequence[float],
    matured: Sequence[int],
    matured_needed: int,
    changes: Mapping[datetime, str],
) -> bytes:
    """Looks at a rollout in event time: the challenger's share of the customers, the strongest guardrail's evidence as a
    share of what lets it fall, and decisions of the smaller arm with a matured label. ``changes`` are marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 6.6), layout="constrained")
    rows = figure.subplots(3, 1, sharex=True)
    moments = np.array([m.astimezone(UTC).replace(tzinfo=None) for m in when], "datetime64[us]")
    panels = (
        ("Share of the customers", share, None),
        ("Evidence against it (falls at 1)", evidence, 1.0),
        ("Matured decisions of an arm", matured, matured_needed),
    )
    for axes, (title, values, line), colour in zip(rows, panels, COLOURS, strict=False):
        axes.step(moments, np.asarray(values), where="post", color=colour, linewidth=1.8)
        axes.set_title(title, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.6)
        if line is not None:
            axes.axhline(line, color=GREY, linestyle=":")
        axes.set_ylim(bottom=0)
    _mark(rows, changes)
    rows[-1].tick_params(axis="x", labelrotation=30, labelsize=8)
    return _png(figure)


def regime_timeline(
    as_served: Mapping[date, float],
    left_alone: Mapping[date, float],
    *,
    levels: Mapping[str, tuple[date, date, float]],
    changes: Mapping[datetime, str],
) -> bytes:
    """Average precision of weekly windows by their last day, as served and of a model left alone; ``levels`` are lines from
    one day to another, named. ``changes`` are marked."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    axes = figure.subplots()
    axes.set_title("Average precision through a change of tactics", fontsize=11, loc="left")
    curves = (("as served, 7 days", as_served), ("the first champion, left alone", left_alone))
    for (name, curve), colour, line in zip(curves, COLOURS, ("-", "--"), strict=False):
        axes.plot(
            _dates(curve), list(curve.values()), line, color=colour, label=name, linewidth=1.8
        )
    for (name, (start, end, value)), colour in zip(levels.items(), COLOURS[2:], strict=False):
        axes.plot(_dates([start, end]), [value] * 2, ":", color=colour, label=name, linewidth=2)
    axes.set_ylim(0, 1.25)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    _mark([axes], changes)
    axes.legend(frameon=False, loc="lower left", fontsize=8)
    return _png(figure)


def _dates(days: Iterable[date]) -> Any:
    return np.array(list(days), "datetime64[D]")


def _mark(rows: Sequence[Axes], changes: Mapping[datetime, str]) -> None:
    """A line through all panels for each change, named in the first, on three heights in turn."""
    for number, (moment, name) in enumerate(changes.items()):
        at = moment.timestamp() / 86_400  # an axis of dates counts days
        for axes in rows:
            axes.axvline(at, color=GREY, linewidth=0.8, linestyle="--")
        height = 0.92 - 0.16 * (number % 3)
        rows[0].text(at, height, f" {name}", fontsize=8, transform=rows[0].get_xaxis_transform())


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11, loc="left")
    axes.set(xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    return figure, axes


def _png(figure: Any, *, tight: bool = False) -> bytes:
    box = "tight" if tight else None
    with io.BytesIO() as out:
        figure.savefig(out, format="png", dpi=DPI, bbox_inches=box, metadata={"Software": None})
        return out.getvalue()
