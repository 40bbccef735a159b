"""Header and frame streaming on the DICOMweb service: ``docs/streaming.md``."""
