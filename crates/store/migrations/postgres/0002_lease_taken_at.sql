-- Since when the holder has had the lease: those who stand by say so.
ALTER TABLE lease ADD COLUMN taken_at BIGINT NOT NULL DEFAULT 0;
