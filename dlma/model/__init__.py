"""Language models: loading, prefix trees, response log-probs and their checks."""
