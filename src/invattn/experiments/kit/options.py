"""Options that several experiments have."""

ORIGINAL = "original"
IMAGE_SIZES = ("32", ORIGINAL)

TRAIN_SIZE = 1000
TEST_SIZE = 1000
"""Images of the reconstruction experiment, and of what is diagnosed with its models."""
