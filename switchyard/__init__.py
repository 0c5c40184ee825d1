"""Switchyard: the library behind a real-time decision platform.

Here: what a decision needs, free of any orchestrator, feature-store SDK, tracker or server.
Not here: Dagster (``orchestration``, ``assets``), Feast (``feature_repo``), BentoML (``bentos``).
"""
