"""Metrics: what is measured of each arm's answers, and the summary table."""
