-- What fails and is waited out, with its history; takes the place of `backoff`, which a binary from
-- before this knows and no later one reads. `part` is the scope of a scope, the node of a node.
CREATE TABLE failing (
    kind TEXT NOT NULL CHECK (kind IN ('pool', 'provider', 'scope', 'image', 'node')),
    name TEXT NOT NULL,
    part TEXT NOT NULL,
    failures BIGINT NOT NULL,
    since BIGINT NOT NULL,
    failed_at BIGINT NOT NULL,
    until BIGINT NOT NULL,
    because TEXT NOT NULL,
    earlier TEXT NOT NULL,
    proof TEXT NOT NULL CHECK (proof IN ('job', 'end')),
    is_full BIGINT NOT NULL CHECK (is_full IN (0, 1)),
    PRIMARY KEY (kind, name, part),
    CHECK ((kind IN ('scope', 'node')) = (part <> ''))
);
INSERT INTO failing (kind, name, part, failures, since, failed_at, until, because, earlier, proof, is_full)
SELECT kind, name, scope, failures, until, until, until, because, '[]', 'job', is_full FROM backoff;

-- Orders to place nothing new somewhere. `node` is empty but for nodes; `name` is then the provider.
CREATE TABLE drain (
    kind TEXT NOT NULL CHECK (kind IN ('pool', 'provider', 'node')),
    name TEXT NOT NULL,
    node TEXT NOT NULL,
    who TEXT NOT NULL,
    why TEXT NOT NULL,
    since BIGINT NOT NULL,
    PRIMARY KEY (kind, name, node),
    CHECK ((kind = 'node') = (node <> ''))
);

-- Doubt whether these books are the newest; no row if there is none.
CREATE TABLE recovering (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    since BIGINT NOT NULL,
    because TEXT NOT NULL
);
