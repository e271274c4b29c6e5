"""Crystals in numpy: cells, bonds, contacts, comparison of structures, space groups. No torch, no files."""
