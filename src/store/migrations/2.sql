-- Since when `asleep_for` is counted, and the bytes of memory that it used when it was last let down.
ALTER TABLE backend ADD COLUMN counted_since INTEGER;
ALTER TABLE backend ADD COLUMN memory INTEGER;
