"""Builders of Kubernetes objects, shared by the kinds. Pure: they return dicts and open nothing."""
