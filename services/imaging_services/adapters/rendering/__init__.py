"""Rendering for people: decoded frames as 8-bit images (Pillow, NumPy), reports as HTML or text."""
