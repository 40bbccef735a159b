"""Comparing storage spaces with the manifest, and making the manifest of a space from its objects."""
