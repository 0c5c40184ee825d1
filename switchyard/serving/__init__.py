"""The decision engine: online store, journal, scoring, reasons, fallback; knows no use case by name."""
