-- What all migrations make of an empty database. Generated.

CREATE TABLE attempt (
    job INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'queued', 'in_progress', 'completed')),
    runner_id INTEGER,
    runner_name TEXT,
    conclusion TEXT CHECK (conclusion IN ('success', 'failure', 'cancelled', 'skipped',
        'timed_out', 'action_required', 'neutral', 'expired', 'other')),
    queued_at INTEGER NOT NULL,
    started_at INTEGER,
    completed_at INTEGER,
    fact_at INTEGER NOT NULL,
    PRIMARY KEY (job, number),
    CHECK ((runner_id IS NULL) = (runner_name IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE backoff (
    kind TEXT NOT NULL CHECK (kind IN ('pool', 'provider', 'scope')),
    name TEXT NOT NULL,
    scope TEXT NOT NULL,
    failures INTEGER NOT NULL,
    until INTEGER NOT NULL,
    because TEXT NOT NULL,
    is_full INTEGER NOT NULL CHECK (is_full IN (0, 1)),
    PRIMARY KEY (kind, name, scope),
    CHECK ((kind = 'scope') = (scope <> ''))
) STRICT, WITHOUT ROWID;

CREATE TABLE delivery (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    forge TEXT NOT NULL,
    id TEXT NOT NULL,
    event TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'decoded', 'emptied', 'undecodable')),
    decided_at INTEGER,
    error TEXT,
    UNIQUE (forge, id),
    CHECK ((state = 'pending') = (decided_at IS NULL)),
    CHECK ((state = 'undecodable') = (error IS NOT NULL))
) STRICT;

CREATE INDEX delivery_decided ON delivery (state, decided_at) WHERE state <> 'pending';

CREATE INDEX delivery_pending ON delivery (sequence) WHERE state = 'pending';

CREATE TABLE delivery_body (
    sequence INTEGER PRIMARY KEY REFERENCES delivery (sequence) ON DELETE CASCADE,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE drain (
    kind TEXT NOT NULL CHECK (kind IN ('pool', 'provider', 'node')),
    name TEXT NOT NULL,
    node TEXT NOT NULL,
    who TEXT NOT NULL,
    why TEXT NOT NULL,
    since INTEGER NOT NULL,
    PRIMARY KEY (kind, name, node),
    CHECK ((kind = 'node') = (node <> ''))
) STRICT, WITHOUT ROWID;

CREATE TABLE event (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    job_forge TEXT,
    job_namespace TEXT CHECK (job_namespace IN ('rest')),
    job_native INTEGER,
    runner INTEGER,
    pool TEXT,
    text TEXT NOT NULL,
    CHECK ((job_forge IS NULL) = (job_namespace IS NULL)),
    CHECK ((job_forge IS NULL) = (job_native IS NULL))
) STRICT;

CREATE TABLE failing (
    kind TEXT NOT NULL CHECK (kind IN ('pool', 'provider', 'scope', 'image', 'node')),
    name TEXT NOT NULL,
    part TEXT NOT NULL,
    failures INTEGER NOT NULL,
    since INTEGER NOT NULL,
    failed_at INTEGER NOT NULL,
    until INTEGER NOT NULL,
    because TEXT NOT NULL,
    earlier TEXT NOT NULL,
    proof TEXT NOT NULL CHECK (proof IN ('job', 'end')),
    is_full INTEGER NOT NULL CHECK (is_full IN (0, 1)),
    PRIMARY KEY (kind, name, part),
    CHECK ((kind IN ('scope', 'node')) = (part <> ''))
) STRICT, WITHOUT ROWID;

CREATE TABLE fleet (
    number INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    who TEXT NOT NULL,
    how TEXT NOT NULL,
    revision TEXT NOT NULL,
    files TEXT NOT NULL
) STRICT;

CREATE TABLE instance (
    id INTEGER PRIMARY KEY,
    provider TEXT NOT NULL,
    pool TEXT NOT NULL,
    purpose TEXT NOT NULL CHECK (purpose IN ('runner', 'standby', 'builder')),
    purpose_runner INTEGER,
    needs TEXT NOT NULL,
    node TEXT,
    epoch INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('planned', 'launching', 'live', 'exited', 'gone')),
    created_at INTEGER NOT NULL,
    launch_at INTEGER,
    launch_deadline INTEGER,
    launch_answered_at INTEGER,
    exit_at INTEGER,
    exit_code INTEGER,
    missing_since INTEGER,
    destroyed_at INTEGER,
    gone_at INTEGER,
    forgotten_at INTEGER,
    CHECK ((purpose = 'runner') = (purpose_runner IS NOT NULL)),
    CHECK ((launch_at IS NULL) = (launch_deadline IS NULL)),
    CHECK (launch_at IS NOT NULL OR launch_answered_at IS NULL),
    CHECK (exit_at IS NOT NULL OR exit_code IS NULL)
) STRICT;

CREATE INDEX instance_forgotten ON instance (forgotten_at) WHERE forgotten_at IS NOT NULL;

CREATE TABLE job (
    id INTEGER PRIMARY KEY,
    forge TEXT NOT NULL,
    namespace TEXT NOT NULL CHECK (namespace IN ('rest')),
    native INTEGER NOT NULL,
    tenant_forge TEXT NOT NULL,
    tenant_kind TEXT NOT NULL CHECK (tenant_kind IN ('user', 'organization', 'enterprise')),
    tenant_id INTEGER NOT NULL,
    scope TEXT NOT NULL,
    repository TEXT NOT NULL,
    wanted TEXT NOT NULL,
    trust TEXT NOT NULL CHECK (trust IN ('unknown', 'untrusted', 'trusted')),
    title_job TEXT NOT NULL,
    title_workflow TEXT NOT NULL,
    title_url TEXT NOT NULL,
    title_run INTEGER NOT NULL,
    accepted_at INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    past_runners TEXT NOT NULL,
    doubt_since INTEGER,
    doubt_missing_since INTEGER,
    doubt_reads INTEGER,
    doubt_read_at INTEGER,
    forgotten_at INTEGER,
    UNIQUE (forge, namespace, native),
    CHECK ((doubt_since IS NULL) = (doubt_reads IS NULL)),
    CHECK (doubt_since IS NOT NULL OR (doubt_missing_since IS NULL AND doubt_read_at IS NULL))
) STRICT;

CREATE INDEX job_forgotten ON job (forgotten_at) WHERE forgotten_at IS NOT NULL;

CREATE TABLE lease (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    epoch INTEGER NOT NULL,
    holder TEXT,
    expires_at INTEGER NOT NULL
, taken_at INTEGER NOT NULL DEFAULT 0) STRICT;

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE next_number (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    runner INTEGER NOT NULL,
    instance INTEGER NOT NULL
) STRICT;

CREATE TABLE recovering (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    since INTEGER NOT NULL,
    because TEXT NOT NULL
) STRICT;

CREATE TABLE runner (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    pool TEXT NOT NULL,
    forge TEXT NOT NULL,
    scope TEXT NOT NULL,
    runner_group TEXT,
    labels TEXT NOT NULL,
    instance INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'starting', 'idle', 'draining', 'busy',
        'stopping', 'gone')),
    pending_at INTEGER,
    starting_at INTEGER,
    idle_at INTEGER,
    draining_at INTEGER,
    busy_at INTEGER,
    stopping_at INTEGER,
    gone_at INTEGER,
    registration TEXT NOT NULL CHECK (registration IN ('unknown', 'made', 'removed')),
    registration_id INTEGER,
    job_forge TEXT,
    job_namespace TEXT CHECK (job_namespace IN ('rest')),
    job_native INTEGER,
    job_ended_at INTEGER,
    outcome TEXT CHECK (outcome IN ('finished', 'surplus', 'lifetime', 'timed_out',
        'never_online', 'launch_failed', 'launch_lost', 'died', 'lost', 'ordered')),
    hold_who TEXT,
    hold_why TEXT,
    hold_since INTEGER,
    forgotten_at INTEGER,
    CHECK ((registration = 'made') = (registration_id IS NOT NULL)),
    CHECK ((job_forge IS NULL) = (job_namespace IS NULL)),
    CHECK ((job_forge IS NULL) = (job_native IS NULL)),
    CHECK ((hold_who IS NULL) = (hold_why IS NULL)),
    CHECK ((hold_who IS NULL) = (hold_since IS NULL))
) STRICT;

CREATE INDEX runner_forgotten ON runner (forgotten_at) WHERE forgotten_at IS NOT NULL;

CREATE TABLE schema_migration (
    number INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL,
    applied_at INTEGER NOT NULL
) STRICT;

CREATE TABLE stray (
    forge TEXT NOT NULL,
    scope TEXT NOT NULL,
    id INTEGER NOT NULL,
    name TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen INTEGER NOT NULL,
    tried_at INTEGER,
    PRIMARY KEY (forge, scope, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE tenant (
    forge TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('user', 'organization', 'enterprise')),
    id INTEGER NOT NULL,
    login TEXT NOT NULL, logins TEXT NOT NULL DEFAULT '[]', served_at INTEGER,
    PRIMARY KEY (forge, kind, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE wait (
    job INTEGER NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    at INTEGER NOT NULL,
    reasons TEXT NOT NULL,
    PRIMARY KEY (job, number)
) STRICT, WITHOUT ROWID;
