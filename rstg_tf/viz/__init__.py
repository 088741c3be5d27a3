"""What draws: the graph over frames, plots, reports, annotated videos. Only programs import it."""
