"""Run folders: what a run leaves, its status, and how files reach it."""
