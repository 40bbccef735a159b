"""What the product knows, without I/O: DICOM, the manifest's model, events, the relay's messages.

Of third-party packages only pydicom (dictionary, character sets), pydantic (typed models) and orjson are
imported here: they hold data and open nothing.
"""
