"""Presets side by side: the same data, seeds and budget for each, and one table of what came out."""
