"""One folder a service: ``settings.py``, ``main.py`` (wiring only) and its verbs."""
