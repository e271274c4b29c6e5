"""The networks: the crystal VAE put together from its components, and the property regressor."""
