"""256 colours for a colour image in a GIF.

Medical colour images are mostly gray, with a few colours that matter: ultrasound with Doppler, captured screens. A
general quantizer spends the palette on one or the other, so here each has its share.
"""

import numpy as np
from PIL import Image

_COLOURED = 24
"""Difference between the largest and the smallest sample from which on a pixel counts as coloured."""
_SAMPLE = 20_000
"""Coloured pixels that the palette is made from."""
_ENTRIES = 256


def with_palette(image: Image.Image) -> Image.Image:
    """The RGB image in mode ``P``."""
    pixels = np.asarray(image).reshape(-1, 3)
    red, green, blue = (np.ascontiguousarray(pixels[:, sample]) for sample in range(3))
    largest, smallest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    coloured = pixels[largest - smallest >= _COLOURED]
    share = len(coloured) / len(pixels)
    colours = 0 if not len(coloured) else 112 if share < 0.5 else 208
    grays = np.linspace(0, 255, _ENTRIES - colours).round().astype(np.uint8)
    entries = [np.repeat(grays, 3)]
    if colours:
        sample = np.ascontiguousarray(coloured[:: len(coloured) // _SAMPLE + 1])[np.newaxis]
        found = Image.fromarray(sample).quantize(colours, Image.Quantize.MEDIANCUT).getpalette() or []
        entries.append(np.array(found[: colours * 3], np.uint8))
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate(entries).tobytes())
    return image.quantize(palette=palette, dither=Image.Dither.NONE)
