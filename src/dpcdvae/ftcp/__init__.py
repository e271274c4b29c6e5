"""FTCP: a variational autoencoder of matrices that stand for crystals (Ren et al., Matter 5, 314 (2022))."""
