"""Wiring: what runs when, with which resources, and the command line that drives it."""
