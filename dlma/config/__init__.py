"""The composed config: schema, check, composition, names of runs, and the building of components."""
