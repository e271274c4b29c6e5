"""Crystals from a trained model: generation, reconstruction, interpolation, property search."""
