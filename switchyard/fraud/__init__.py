"""The use case card fraud: its nouns, columns, sources, windows, activity, features and rules."""
