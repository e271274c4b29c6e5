"""Training a model on a prepared data set: loop, logs, checkpoints, resumption."""
