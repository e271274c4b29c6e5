"""The model: components put together, its statistics, its sampling, its checkpoints."""
