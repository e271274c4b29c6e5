"""Models that place atom after atom: G-SchNet (Gebauer et al. 2019) on clusters, P-G-SchNet on periodic crystals."""
