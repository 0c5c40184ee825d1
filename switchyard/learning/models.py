"""The kinds of model there are, behind one interface: logistic regression and boosted trees.

A new kind is a subclass of ``Model`` and one entry of ``MODELS``; the laws in ``tests/learning`` then run
on it too.
"""

from __future__ import annotations

from collections.abc import Mapping

from switchyard.learning.boosting import GradientBoosting
from switchyard.learning.interface import Model
from switchyard.learning.logistic import LogisticRegression

__all__ = ["MODELS", "GradientBoosting", "LogisticRegression", "Model"]

MODELS: Mapping[str, type[Model]] = {m.name: m for m in (LogisticRegression, GradientBoosting)}
"""Every kind of model by its name; a release names its models with these."""
