"""Dense prediction: camouflaged objects."""
