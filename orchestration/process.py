"""What every process of the command line sets for itself before the frameworks are imported.

Not here: the environment that a home needs (``home``).
"""

from __future__ import annotations

import gc
import sys
import warnings


def settle() -> None:
    """Silence the frameworks' deprecations, which tests see all of, and look for garbage seldom: each
    search walks the millions of objects that the frameworks keep for good."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    gc.set_threshold(50_000, 20, 50)
