"""Animated GIFs: frames, times, colours."""

from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from imaging_services.adapters.rendering.animation import Animation, frame_milliseconds
from imaging_services.adapters.rendering.gif_palette import with_palette
from imaging_services.adapters.rendering.presentation import Presentation
from support.rendering import header_of, image_in, item, pixels_of

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = np.array([[255, 0, 0], [0, 128, 0], [40, 40, 250], [250, 200, 0]], np.uint8)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "RGB"])
def test_every_frame_is_there_with_its_own_colours(photometric: str) -> None:
    frames = [np.roll(RAMP, number, axis=0) for number in range(3)]
    if photometric == "RGB":
        frames = [np.stack([frame] * 3, axis=-1) for frame in frames]
        frames[1][0, :4] = COLOURS
    header = header_of(frames[0], photometric, FrameTime=40)
    animation = Animation(header, pixels_of(header), Presentation())
    content = b"".join(animation.add(frame, photometric, number) for number, frame in enumerate(frames, 1))
    film = image_in(content + animation.end)
    assert (film.n_frames, film.size, film.info["loop"], film.info["duration"]) == (3, (16, 16), 0, 40)
    # Pillow's reader takes all frames for gray when the first one's palette is.
    decoded = imagecodecs.gif_decode(content + animation.end, index=None)
    for shown, frame in zip(decoded, frames, strict=True):
        expected = frame if frame.ndim == 3 else np.stack([frame] * 3, axis=-1)
        assert np.abs(shown[..., :3].astype(int) - expected).max() <= (4 if photometric == "RGB" else 0)


def test_rare_colours_and_fine_grays_stay() -> None:
    picture = np.stack([np.tile(RAMP, (16, 16))] * 3, axis=-1)
    picture[100, 100:104] = COLOURS
    shown = np.asarray(with_palette(Image.fromarray(picture)).convert("RGB")).astype(int)
    assert np.abs(shown[100, 100:104] - COLOURS).max() <= 1
    assert np.abs(shown - picture).max() <= 4


@pytest.mark.parametrize(
    ("attributes", "milliseconds"),
    [
        ({}, 100),
        ({"FrameTime": 33.3}, 33.3),
        ({"FrameTime": 1}, 20),
        ({"FrameTimeVector": [0, 50, 50]}, 50),
        ({"CineRate": 25}, 40),
        ({"RecommendedDisplayFrameRate": 10, "CineRate": 25}, 100),
        ({"FrameTime": 0, "CineRate": 0}, 100),
    ],
)
def test_how_long_a_frame_is_shown(attributes: dict[str, Any], milliseconds: float) -> None:
    assert frame_milliseconds(item(**attributes)) == milliseconds
