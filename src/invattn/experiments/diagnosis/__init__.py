"""Diagnosis of a stored block on images."""
