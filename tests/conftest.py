"""What every test shares: hypothesis without deadlines (the machine is shared; timings are benchmarks')."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("switchyard", deadline=None, max_examples=100)
settings.load_profile("switchyard")
