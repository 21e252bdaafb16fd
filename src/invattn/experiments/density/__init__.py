"""Density: flows with attention on points and images."""
