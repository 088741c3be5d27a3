"""A trained network on one video: whole clips, windows of a long one, frame by frame."""
