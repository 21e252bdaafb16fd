"""Training that can be stopped at any step and continued to the same weights."""
