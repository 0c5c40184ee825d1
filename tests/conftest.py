"""What every test shares: hypothesis without deadlines (the machine is shared; timings are benchmarks')."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile(
    "switchyard",
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],  # the same: a matter of the machine's load
)
settings.load_profile("switchyard")
