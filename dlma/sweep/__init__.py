"""From the runs of a sweep to its results: settings, curves, effects, costs."""
