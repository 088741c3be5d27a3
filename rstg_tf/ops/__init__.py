"""Numerical forms of the layers' products: none of them is in the paper, each equals a plainer one."""
