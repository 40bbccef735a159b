-- Studies whose next revision overtakes others: an urgent instance has changed them. The mark goes with the revision.

ALTER TABLE study_change ADD COLUMN urgent boolean NOT NULL DEFAULT false;
