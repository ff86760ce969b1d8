"""Pairs of answers: sampled, from people, imported, or as the official code makes them."""
