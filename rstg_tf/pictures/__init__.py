"""Pictures of frames, attention and accuracy: Pillow draws on frames, matplotlib the plots."""
