"""Records on the disk: their schema, the manifest beside them, and how many processes write them."""
