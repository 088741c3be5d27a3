"""A trained model as a SavedModel: signatures, warm-up requests, versions."""
