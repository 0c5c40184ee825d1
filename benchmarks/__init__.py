"""The code behind every published figure; ``switchyard bench`` and ``make acceptance`` are its doors."""
