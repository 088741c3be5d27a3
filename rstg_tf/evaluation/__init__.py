"""Every clip of a data set once -> scores and figures."""
