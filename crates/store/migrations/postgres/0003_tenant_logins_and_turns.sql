-- Which logins mean a tenant, as a JSON list, and when it last had its turn.
ALTER TABLE tenant ADD COLUMN logins TEXT NOT NULL DEFAULT '[]';
ALTER TABLE tenant ADD COLUMN served_at BIGINT;
UPDATE tenant SET logins = json_build_array(login)::text;
