"""The page of a run; needs no torch."""
