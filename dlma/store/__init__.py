"""The store of stages: keys, locks, atomic renames, shards, manifests, and what may be let go."""
