-- When studies are announced, what holds them back, and the events that wait for the event log.

-- Studies that changed since their last revision; the quiet time counts from `last_recorded`. A table of its own, so
-- that restarting a timer does not rewrite the study and its indexes.
CREATE TABLE study_change (
  study_id bigint PRIMARY KEY REFERENCES dicom_study (id) ON DELETE CASCADE,
  last_recorded timestamptz NOT NULL
);
CREATE INDEX study_change_last_recorded ON study_change (last_recorded);

-- Open associations: a lease that is renewed, and a tombstone (`released_at`) so that a late hold has no effect.
CREATE TABLE association (
  association_id varchar(255) COLLATE "C" PRIMARY KEY,
  expires_at timestamptz NOT NULL,
  released_at timestamptz
);
CREATE INDEX association_expires_at ON association (expires_at);

-- The studies that an association is sending.
CREATE TABLE association_study (
  association_id varchar(255) COLLATE "C" NOT NULL REFERENCES association (association_id) ON DELETE CASCADE,
  study_instance_uid varchar(255) COLLATE "C" NOT NULL,
  PRIMARY KEY (study_instance_uid, association_id)
);
CREATE INDEX association_study_association ON association_study (association_id);

-- Events in the order in which they are to be published: within a study the ids are taken under its lock. A published
-- event is deleted. Documents are compressed (zlib) by the processor, so that most stay within their row: PostgreSQL
-- would cut them into pieces, each with an index entry.
CREATE TABLE outbox (
  id bigint PRIMARY KEY DEFAULT nextval('hibernate_sequence'),
  event_id varchar(255) NOT NULL,
  type varchar(255) NOT NULL,
  source text NOT NULL,
  time timestamptz NOT NULL,
  extensions jsonb NOT NULL DEFAULT '{}',
  compressed boolean NOT NULL,
  data bytea NOT NULL
) WITH (toast_tuple_target = 8160);
ALTER TABLE outbox ALTER COLUMN data SET STORAGE EXTERNAL;

-- Events that the log refused for good, and why.
CREATE TABLE outbox_refused (
  LIKE outbox INCLUDING STORAGE,
  reason text NOT NULL,
  PRIMARY KEY (id)
);

-- How many events have been handed to the event log.
CREATE TABLE outbox_published (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  events bigint NOT NULL
);
INSERT INTO outbox_published (events) VALUES (0);
