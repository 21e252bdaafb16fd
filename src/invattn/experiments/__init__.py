"""Experiments: configuration, data, model, training, evaluation, record and the figures' data."""
