"""Header and frame streaming as ClearCanvas ImageServer and its clients do it: the study header document, the SOAP
contract, frames one by one. ``docs/streaming.md`` describes the formats."""
