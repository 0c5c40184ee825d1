"""What the demonstration of the loop makes of its events; the loop itself is `switchyard demo --scenario drift`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from orchestration.drift_demo import CHANGE, Story, delays_of, settings_of
from switchyard.settings import Settings, load_settings

CHANGED = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=CHANGE)
SETTINGS = load_settings(source="simulator", **settings_of(change=True))


def story(*events: tuple[float, str, str | None]) -> Story:
    """Events by days after the change."""
    told = Story(lambda _: None)
    for days, what, release in events:
        told.add(CHANGED + timedelta(days=days), what, "because", release)
    return told


def test_it_is_found_and_recovered_by_what_came_after_the_change():
    told = story(
        (-3, "drift found", None),
        (-3, "retraining by drift", None),
        (-3, "trained", "an earlier one"),
        (2, "promote", "an earlier one"),
        (10, "poor performance found", None),
        (11, "retraining by performance", None),
        (11, "trained", "the new one"),
        (25.5, "promote", "the new one"),
    )

    delays = delays_of(SETTINGS, told)

    assert (delays["days_to_detect"], delays["days_to_recover"]) == (10, 25.5)
    assert delays["retrained_because"] == "drift, performance"


def test_what_was_not_found_is_told_as_such():
    delays = delays_of(SETTINGS, story((2, "promote", "an earlier one")))

    assert (delays["days_to_detect"], delays["days_to_recover"]) == (None, None)


def test_without_a_change_promotions_and_their_causes_are_told():
    usual: Settings = load_settings(source="simulator", **settings_of(change=False))
    told = story((-1, "retraining by schedule", None), (16, "promote", "the new one"))

    assert delays_of(usual, told) == {"promoted": 1, "retrained_because": "schedule"}
