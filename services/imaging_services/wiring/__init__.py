"""Choices between adapters that several services make the same way; used by the apps' ``main`` modules."""
