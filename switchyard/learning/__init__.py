"""Splits, models, metrics, thresholds, policies and releases; knows columns only as given lists."""
