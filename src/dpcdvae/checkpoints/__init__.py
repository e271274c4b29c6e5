"""Trained models in files: reading and writing checkpoints, and converting those of other programs."""
