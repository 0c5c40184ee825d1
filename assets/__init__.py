"""Dagster assets, one package per use case. An asset reads through a resource, calls one function of
``switchyard``, writes, and returns metadata; a loop or a formula belongs in the library."""
