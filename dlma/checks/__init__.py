"""Checks before training and after it, and what they read."""
