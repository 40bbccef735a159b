"""Query parameters: whatever is sent is understood or refused by name."""

from hypothesis import given, settings
from hypothesis import strategies as st

from imaging_services.adapters.rendering.presentation import (
    LARGEST_SIDE,
    Presentation,
    Region,
    Viewport,
    Window,
)
from imaging_services.apps.dicomweb_ingestion.rendered_parameters import rendered_presentation, thumbnail_presentation
from imaging_services.apps.dicomweb_ingestion.wado_uri_parameters import uri_presentation
from imaging_services.domain.errors import InvalidInput

NAMES = ("window", "viewport", "quality", "iccprofile", "charset", "rows", "columns", "region", "imageQuality")
PIECES = st.lists(
    st.sampled_from(["", "0", "1", "-1", "0.5", "1e5", "9" * 20, "-.5", "x", "²", "linear", "yes"]), max_size=7
)
VALUES = PIECES.map(",".join) | st.text(max_size=12)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
def test_nothing_but_a_presentation_or_a_refusal_that_names_the_parameter(parameters: dict[str, str]) -> None:
    for read in (lambda sent: rendered_presentation(sent)[0], thumbnail_presentation, uri_presentation):
        try:
            presentation = read(parameters)
        except InvalidInput as error:
            assert any(name in str(error) for name in parameters)  # noqa: PT017 - refused or understood, both are right
            continue
        viewport = presentation.viewport
        assert 1 <= (viewport.columns or 1) <= LARGEST_SIDE
        assert 1 <= (viewport.rows or 1) <= LARGEST_SIDE
        assert 1 <= presentation.quality <= 100
        assert presentation.window is None or presentation.window.usable


def test_every_form_of_a_viewport() -> None:
    def viewport(text: str) -> Viewport:
        return rendered_presentation({"viewport": text})[0].viewport

    assert viewport("100,50") == Viewport(100, 50)
    assert viewport("100,50,1.5,2") == Viewport(100, 50, Region(1.5, 2.0))
    assert viewport("100,50,,,10") == Viewport(100, 50, Region(right=10.0))
    assert viewport(" 100 , 50 , 1 , 2 , -10 , -20 ") == Viewport(
        100, 50, Region(1, 2, 11, 22), flip_horizontally=True, flip_vertically=True
    )


def test_what_is_left_out_has_its_default() -> None:
    assert rendered_presentation({}) == (Presentation(), [])
    assert uri_presentation({"frameNumber": "3", "vendor": "x"}) == Presentation()
    assert thumbnail_presentation({"quality": "1"}) == Presentation(viewport=Viewport(256, 256))


def test_functions_of_a_window() -> None:
    for name, function in (("linear", "LINEAR"), ("LINEAR-EXACT", "LINEAR_EXACT"), ("sigmoid", "SIGMOID")):
        assert rendered_presentation({"window": f"40,400.5,{name}"})[0].window == Window(40, 400.5, function)  # type: ignore[arg-type]


def test_annotations_that_are_not_known_come_back_as_plain_words() -> None:
    _, warnings = rendered_presentation({"annotation": 'patient,"\r\nSet-Cookie: x",lunch'})
    assert warnings == ["The following annotation values are not supported: Set-Cookiex, lunch"]
