-- Which logins mean a tenant, as a JSON list, and when it last had its turn.
ALTER TABLE tenant ADD COLUMN logins TEXT NOT NULL DEFAULT '[]';
ALTER TABLE tenant ADD COLUMN served_at INTEGER;
UPDATE tenant SET logins = json_array(login);
