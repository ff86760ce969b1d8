"""Intervals, tests and variance components: numbers in, estimates out."""
