"""Samplers: answers to prompts, drawn in this process or by a server."""
