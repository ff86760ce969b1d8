"""Where and how the computation runs: Lightning, processes, sharding."""
