-- Headers of instances as the study header document holds them, so that each stored file is read once for it. Derived:
-- a row may be missing, is made again from the object that it names, and goes away with the instance.
CREATE TABLE instance_header (
  instance_id bigint PRIMARY KEY REFERENCES dicom_instance (id) ON DELETE CASCADE,
  objectname varchar(1024) COLLATE "C" NOT NULL,
  header bytea NOT NULL
);
ALTER TABLE instance_header ALTER COLUMN header SET STORAGE EXTERNAL;  -- is compressed already
