"""Figures as Prometheus reads them: the text format, written straight from the numbers of all workers.

Here: the format. Not here: what is counted (``metrics``), what is looked up for a scrape (``observed``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, groupby

from switchyard.serving.metrics import COUNTED, SCORES, Family, bin_names
from switchyard.serving.observed import Figure

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

SCORE_BINS = Family(
    "switchyard_scores_total",
    "counter",
    "Scores by bin, which is named by its upper end",
    ("variant", "bin"),
)
"""The histogram of scores once more, bin by bin: a PSI is made of their shares."""

Children = Mapping[tuple[str, ...], Mapping[str, float]]
"""Label values to the numbers of that child, by part (a histogram has many)."""


def exposition(counted: Mapping[str, float], observed: Iterable[Figure]) -> bytes:
    """All figures as text. ``counted`` is by series, as ``metrics.total_of`` returns it."""
    families = _children(counted)
    lines: list[str] = []
    for family in COUNTED:
        if children := families.get(family.name):
            lines += _histogram(family, children) if family.edges else _plain(family, children)
    if scores := families.get(SCORES.name):
        lines += _plain(SCORE_BINS, _by_bin(scores))
    for family, figures in groupby(observed, key=lambda figure: figure.family):
        lines += _plain(family, {figure.labels: {"": figure.value} for figure in figures})
    return ("\n".join(lines) + "\n").encode()


def _children(counted: Mapping[str, float]) -> dict[str, dict[tuple[str, ...], dict[str, float]]]:
    families: dict[str, dict[tuple[str, ...], dict[str, float]]] = {}
    for name, value in counted.items():
        family, *labels, part = name.split("\t")
        families.setdefault(family, {}).setdefault(tuple(labels), {})[part] = value
    return families


def _plain(family: Family, children: Children) -> list[str]:
    return _header(family) + [
        f"{family.name}{_labels(family.labels, values)} {parts['']!r}"
        for values, parts in sorted(children.items())
    ]


def _histogram(family: Family, children: Children) -> list[str]:
    lines = _header(family)
    names = bin_names(family.edges)
    for values, parts in sorted(children.items()):
        counts = list(accumulate(parts.get(str(i), 0.0) for i in range(len(names))))
        for name, count in zip(names, counts, strict=True):
            labels = _labels((*family.labels, "le"), (*values, name))
            lines.append(f"{family.name}_bucket{labels} {count!r}")
        labels = _labels(family.labels, values)
        lines.append(f"{family.name}_sum{labels} {parts.get(str(len(names)), 0.0)!r}")
        lines.append(f"{family.name}_count{labels} {counts[-1]!r}")
    return lines


def _by_bin(scores: Children) -> dict[tuple[str, ...], dict[str, float]]:
    names = bin_names(SCORES.edges)
    return {
        (*values, name): {"": parts.get(str(i), 0.0)}
        for values, parts in scores.items()
        for i, name in enumerate(names)
    }


def _header(family: Family) -> list[str]:
    return [f"# HELP {family.name} {family.meaning}", f"# TYPE {family.name} {family.kind}"]


def _labels(names: Sequence[str], values: Sequence[str]) -> str:
    if not names:
        return ""
    pairs = zip(names, values, strict=True)
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in pairs) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
