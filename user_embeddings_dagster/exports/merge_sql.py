"""What DuckDB does while messages are merged (`merge`), on the views `staged`, `names`, `rejected` and `owners`.

The statements are run in this order. `staged` has a number (`seq`), a part, fingerprints and bytes of the text for each
message, and no text.
"""

NEAR_MICROSECONDS = 24 * 3600 * 1_000_000  # since the last time the author said the same

# A numbering whose thread is known from another export of the same account: all of it belongs there.
PLACES = """
    CREATE TEMP TABLE places AS
    SELECT numbering, min(thread_id) AS thread_id FROM staged WHERE numbering <> thread_id
    GROUP BY numbering HAVING min(thread_id) = max(thread_id);
"""

# Copies of one message: the contributor's own first, then those with text, those of a thread that is known to others,
# then by place. `dropped` are the losers; `fill` is what the winners lack, of those of whose copies
# some have a field and some have not.
COPIES = """
    CREATE TEMP TABLE repeated AS SELECT hash(message_id) AS id FROM staged GROUP BY id HAVING count(*) > 1;

    CREATE TEMP TABLE ranked AS
    SELECT seq, part, message_id, row_number() OVER (
        PARTITION BY message_id ORDER BY
            is_owner DESC, n_bytes = 0, numbering IS NOT DISTINCT FROM thread_id,
            raw_sha256, raw_member, raw_location, seq
    ) AS copy FROM staged WHERE hash(message_id) IN (FROM repeated);

    DROP TABLE repeated;

    CREATE TEMP TABLE dropped AS SELECT seq, part, 'exact_duplicate' AS reason FROM ranked WHERE copy > 1;

    CREATE TEMP TABLE lacking AS
    SELECT message_id FROM staged SEMI JOIN ranked USING (seq) GROUP BY message_id
    HAVING count(*) FILTER (n_bytes > 0) NOT IN (0, count(*)) OR count(media_kind) NOT IN (0, count(*))
        OR count(parent_id) NOT IN (0, count(*)) OR count(created_at) NOT IN (0, count(*))
        OR count(edited_at) NOT IN (0, count(*)) OR count(community) NOT IN (0, count(*));

    CREATE TEMP TABLE fill AS
    SELECT message_id,
        first(text_seq ORDER BY copy) FILTER (n_bytes > 0) AS text_seq,
        first(n_bytes ORDER BY copy) FILTER (n_bytes > 0) AS n_bytes,
        first(text_hash ORDER BY copy) FILTER (n_bytes > 0) AS text_hash,
        first(near_hash ORDER BY copy) FILTER (n_bytes > 0) AS near_hash,
        first(media_kind ORDER BY copy) FILTER (media_kind IS NOT NULL) AS media_kind,
        first(parent_id ORDER BY copy) FILTER (parent_id IS NOT NULL) AS parent_id,
        first(created_at ORDER BY copy) FILTER (created_at IS NOT NULL) AS created_at,
        first(edited_at ORDER BY copy) FILTER (edited_at IS NOT NULL) AS edited_at,
        first(community ORDER BY copy) FILTER (community IS NOT NULL) AS community
    FROM staged JOIN (SELECT seq, copy FROM ranked SEMI JOIN lacking USING (message_id)) USING (seq)
    GROUP BY message_id;

    DROP TABLE ranked;
    DROP TABLE lacking;

    CREATE TEMP VIEW filled AS
    SELECT s.* REPLACE (
        coalesce(p.thread_id, s.thread_id) AS thread_id,
        IF(s.n_bytes = 0 AND f.n_bytes > 0, f.text_seq, s.text_seq) AS text_seq,
        IF(s.n_bytes = 0 AND f.n_bytes > 0, f.n_bytes, s.n_bytes) AS n_bytes,
        IF(s.n_bytes = 0 AND f.n_bytes > 0, f.text_hash, s.text_hash) AS text_hash,
        IF(s.n_bytes = 0 AND f.n_bytes > 0, f.near_hash, s.near_hash) AS near_hash,
        coalesce(s.media_kind, f.media_kind) AS media_kind,
        coalesce(s.parent_id, f.parent_id) AS parent_id,
        coalesce(s.created_at, f.created_at) AS created_at,
        coalesce(s.edited_at, f.edited_at) AS edited_at,
        coalesce(s.community, f.community) AS community
    ) FROM staged s LEFT JOIN fill f USING (message_id) LEFT JOIN places p ON s.thread_id = p.numbering;
"""

# One conversation as several accounts exported it, each with message ids of its own: the nth time that an author says
# the same in a second is the same message in all of them, and so is the one message of a second that was edited. An
# author's own export wins. What a message answers is taken from a copy in whose export that is, and told by its winner.
CONVERSATIONS = """
    CREATE TEMP TABLE shared AS
    SELECT thread_id FROM filled WHERE numbering IS NOT NULL
    GROUP BY thread_id HAVING min(numbering) <> max(numbering);

    CREATE TEMP TABLE said AS
    SELECT seq, part, message_id, parent_id, thread_id, numbering, author_id, created_at, role, media_kind, is_owner,
        edited_at IS NOT NULL AS edited, text_hash, raw_sha256, raw_member, raw_location
    FROM filled SEMI JOIN shared USING (thread_id) ANTI JOIN dropped USING (seq) WHERE numbering IS NOT NULL;

    CREATE TEMP TABLE copies AS
    WITH counted AS (
        SELECT *, count(*) OVER (PARTITION BY thread_id, author_id, created_at, role, media_kind, numbering) AS n
        FROM said
    ), keyed AS (
        SELECT * REPLACE (
            IF(created_at IS NOT NULL AND bool_or(edited) OVER moment AND max(n) OVER moment = 1, NULL, text_hash)
            AS text_hash
        ) FROM counted WINDOW moment AS (PARTITION BY thread_id, author_id, created_at, role, media_kind)
    ), repeated AS (
        SELECT *, row_number() OVER (
            PARTITION BY thread_id, author_id, created_at, role, media_kind, text_hash, numbering
            ORDER BY raw_sha256, raw_member, raw_location, seq
        ) AS nth FROM keyed
    )
    SELECT seq, part, message_id, parent_id, first_value(message_id) OVER one AS winner, row_number() OVER one AS copy
    FROM repeated WINDOW one AS (
        PARTITION BY thread_id, author_id, created_at, role, media_kind, text_hash, nth
        ORDER BY is_owner DESC, raw_sha256, raw_member, raw_location, seq
    );

    DROP TABLE said;

    INSERT INTO dropped SELECT seq, part, 'exact_duplicate' FROM copies WHERE copy > 1;

    CREATE TEMP TABLE answers AS
    SELECT c.winner AS message_id,
        first(coalesce(p.winner, c.parent_id) ORDER BY p.winner IS NULL, c.copy) AS parent_id
    FROM copies c LEFT JOIN copies p ON p.message_id = c.parent_id
    WHERE c.parent_id IS NOT NULL GROUP BY c.winner;

    DROP TABLE copies;

    CREATE TEMP VIEW merged AS
    SELECT f.* REPLACE (coalesce(a.parent_id, f.parent_id) AS parent_id)
    FROM filled f LEFT JOIN answers a USING (message_id);
"""

# Ids have 128 bits in hexadecimal digits: as UUIDs they are in the same order, in a third of the memory.
# 64-bit hashes stand for texts, compared only within one author; and only within one thread where others may have
# exported the same conversation, because what is said in both copies belongs to both.
EMPTY_AND_DUPLICATES = f"""
    CREATE TEMP TABLE narrow AS
    SELECT seq, part, message_id::UUID AS message_id, author_id::UUID AS author_id, created_at, is_owner,
        text_hash, near_hash, IF(numbering IS NULL, NULL, thread_id::UUID) AS within,
        n_bytes = 0 AND media_kind IS NULL AS empty, role = 'deleted' AS deleted,
        author_id IS NOT NULL AND created_at IS NOT NULL AND role = 'user' AND media_kind IS NULL AS comparable
    FROM merged ANTI JOIN dropped USING (seq);

    INSERT INTO dropped SELECT seq, part, IF(deleted, 'deleted_author', 'empty') FROM narrow WHERE empty;

    INSERT INTO dropped SELECT seq, part, 'exact_duplicate' FROM narrow WHERE comparable AND NOT empty
    QUALIFY row_number() OVER (
        PARTITION BY author_id, within, created_at, text_hash ORDER BY is_owner DESC, message_id
    ) > 1;

    INSERT INTO dropped SELECT seq, part, 'near_duplicate' FROM narrow ANTI JOIN dropped USING (seq)
    WHERE comparable AND near_hash IS NOT NULL
    QUALIFY epoch_us(created_at) - lag(epoch_us(created_at)) OVER (
        PARTITION BY author_id, within, near_hash ORDER BY created_at, message_id
    ) <= {NEAR_MICROSECONDS};

    DROP TABLE narrow;
"""

ORDER = """
    SELECT seq, text_seq, n_bytes FROM merged ANTI JOIN dropped USING (seq)
    ORDER BY thread_id::UUID, created_at NULLS FIRST, message_id::UUID
"""

MESSAGES = """
    SELECT * EXCLUDE (part, is_owner, is_public, numbering, text_seq, n_bytes, text_hash, near_hash),
        role = 'user' AND author_id IS NOT NULL AND (
            is_owner OR (is_public AND NOT EXISTS (FROM owners)) OR author_id IN (SELECT author_id FROM owners)
        ) AS is_subject
    FROM merged
"""
KEPT = "CREATE TEMP TABLE kept AS SELECT DISTINCT thread_id FROM merged ANTI JOIN dropped USING (seq)"

PARTICIPANTS = """
    SELECT datadao, thread_id, author_id, name, min(name_kind) AS name_kind
    FROM (
        SELECT n.* REPLACE (coalesce(p.thread_id, n.thread_id) AS thread_id)
        FROM names n LEFT JOIN places p ON n.thread_id = p.numbering
    ) SEMI JOIN kept USING (thread_id)
    WHERE author_id IS NOT NULL GROUP BY ALL ORDER BY thread_id, author_id, name
"""

REJECTED = """
    SELECT datadao, raw_file, raw_sha256, raw_member, raw_location, reason, min(detail) AS detail
    FROM rejected GROUP BY ALL
    ORDER BY raw_sha256, raw_member, raw_location, reason
"""
