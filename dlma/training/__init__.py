"""What objective, reward model and instruction tuning share: the training rule and its resume points."""
