-- Matching of dates with their times and in time zones, and of names without strokes. As in domain/manifest/values.py
-- and moments.py.

-- An offset from UTC, or that at the end of a date-time, in minutes; NULL when there is none.
CREATE FUNCTION dicom_zone(value text) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN value ~ '^([0-9]{4}([0-9]{2}){0,5}(\.[0-9]{1,6})?)?[+-](0[0-9]|1[0-4])[0-5][0-9]$'
    THEN (substr(zone, 1, 1) || '1')::int * (60 * substr(zone, 2, 2)::int + substr(zone, 4, 2)::int) END
  FROM (SELECT right(value, 5)) AS last (zone)
$$;

-- The key of a date-time so many minutes later; NULL when its date does not exist.
CREATE FUNCTION dicom_moved(key text, minutes int) RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
  RETURN to_char(
    make_date(substr(key, 1, 4)::int, substr(key, 5, 2)::int, substr(key, 7, 2)::int)
      + make_interval(hours => substr(key, 9, 2)::int, mins => substr(key, 11, 2)::int + minutes,
                      secs => substr(key, 13, 2)::int),
    'YYYYMMDDHH24MISS') || substr(key, 15);
EXCEPTION WHEN datetime_field_overflow OR invalid_datetime_format THEN
  RETURN NULL;
END
$$;

-- The moment of a date and its time, in the zone of a query when both zones are known; the date alone without a time.
CREATE FUNCTION dicom_moment(day text, clock text, zone int, query_zone int)
RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN dicom_time(clock) IS NULL THEN day
              WHEN zone IS NULL OR query_zone IS NULL THEN day || dicom_time(clock)
              ELSE dicom_moved(day || dicom_time(clock), query_zone - zone) END
$$;

-- The words of names that are recorded already: letters with a stroke, and ligatures, count as plain ones now.
CREATE FUNCTION dicom_plain_letters(word text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT replace(replace(replace(translate(word, 'øłđðħı', 'olddhi'), 'æ', 'ae'), 'œ', 'oe'), 'þ', 'th')
$$;
CREATE FUNCTION dicom_plain_names(names jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT jsonb_object_agg(one.key, one.value || jsonb_build_object('w', ARRAY(
    SELECT DISTINCT dicom_plain_letters(word) FROM jsonb_array_elements_text(one.value -> 'w') AS word)))
  FROM jsonb_each(names) AS one
$$;
UPDATE dicom_series SET names = dicom_plain_names(names) WHERE names::text ~ '[øłđðħıæœþ]';
UPDATE dicom_study SET names = dicom_plain_names(names),
  patient_name_words = array_to_tsvector(ARRAY(
    SELECT DISTINCT dicom_plain_letters(word) FROM unnest(tsvector_to_array(patient_name_words)) AS word))
WHERE names::text ~ '[øłđðħıæœþ]';
DROP FUNCTION dicom_plain_names, dicom_plain_letters;
