"""Reconstruction: train on a fixed target, invert, compare."""
