"""Trackers: they keep the curves and samples of a run besides the CSV files in its folder (docs/loggers.md)."""
