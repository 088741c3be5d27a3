"""Something-Something-v1 and v2; `python -m datasets.something_something`."""
