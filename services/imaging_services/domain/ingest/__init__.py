"""Taking in one instance: spool, scan the header, write the Part 10 file, announce it."""
