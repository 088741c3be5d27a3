"""The training step, the loop around it, optimisers, progress."""
