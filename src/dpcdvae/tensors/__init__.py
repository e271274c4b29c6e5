"""Crystals as tensors: lattices, batches, neighbour graphs, counted noise."""
