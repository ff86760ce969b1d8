"""Who samples and scores the shards of a stage: this process and its ranks, or the workers of a cluster."""
