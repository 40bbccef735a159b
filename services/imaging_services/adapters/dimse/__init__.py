"""The DICOM upper layer on asyncio (PS3.8) with DIMSE messages (PS3.7): listener, requestor, pool of associations."""
