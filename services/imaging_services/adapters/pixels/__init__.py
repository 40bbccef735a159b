"""Decoding and encoding pixel data: the only place that knows the codecs (imagecodecs)."""
