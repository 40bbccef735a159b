"""Python services of imaging-ingestion: DICOM and DICOMweb in, stored, catalogued, queryable, announced."""
