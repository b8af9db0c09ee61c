-- The history's tables. A name says what an analyst would look for; times are UTC; money is in US dollars.

CREATE TABLE IF NOT EXISTS progress (sequence UBIGINT NOT NULL);
COMMENT ON TABLE progress IS 'One row: how far the history has folded the stream.';
COMMENT ON COLUMN progress.sequence IS 'The last message applied. Everything up to it is in the tables, nothing after it is.';

CREATE TABLE IF NOT EXISTS events (
    sequence UBIGINT NOT NULL,
    position INTEGER NOT NULL,
    happened_at TIMESTAMPTZ NOT NULL,
    user_id VARCHAR NOT NULL,
    task_id VARCHAR,
    source VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    attempt INTEGER,
    step INTEGER,
    payload VARIANT
);
COMMENT ON TABLE events IS 'Everything that happened, one row an event, as it was written.';
COMMENT ON COLUMN events.sequence IS 'The stream sequence of the message that carried it.';
COMMENT ON COLUMN events.position IS 'Its place in that message, from 0: one decision can have several events.';
COMMENT ON COLUMN events.happened_at IS 'When, by the clock of who wrote it.';
COMMENT ON COLUMN events.task_id IS 'Null for an event of the user''s own log.';
COMMENT ON COLUMN events.source IS 'task: the scheduler decided it; journal: the agent did it; user: the user''s own log.';
COMMENT ON COLUMN events.kind IS 'The event''s type, as docs/ has it: turn_ended, step_finished, ...';
COMMENT ON COLUMN events.payload IS 'The event. payload.result.text and the like; compare as payload.text::VARCHAR.';

CREATE TABLE IF NOT EXISTS receipts (
    sequence UBIGINT NOT NULL,
    happened_at TIMESTAMPTZ NOT NULL,
    user_id VARCHAR NOT NULL,
    task_id VARCHAR,
    key VARCHAR,
    status VARCHAR NOT NULL,
    reason VARCHAR NOT NULL,
    command_sequence UBIGINT NOT NULL
);
COMMENT ON TABLE receipts IS 'How each command ended.';
COMMENT ON COLUMN receipts.sequence IS 'The stream sequence of the decision.';
COMMENT ON COLUMN receipts.key IS 'The command''s idempotency key; null for commands to a user''s own log.';
COMMENT ON COLUMN receipts.status IS 'consumed, rejected or indeterminate.';
COMMENT ON COLUMN receipts.reason IS 'Why it was rejected.';
COMMENT ON COLUMN receipts.command_sequence IS 'The stream sequence of the command.';

CREATE TABLE IF NOT EXISTS refusals (
    sequence UBIGINT NOT NULL,
    happened_at TIMESTAMPTZ NOT NULL,
    user_id VARCHAR NOT NULL,
    task_id VARCHAR NOT NULL,
    attempt INTEGER NOT NULL,
    host VARCHAR NOT NULL,
    port INTEGER NOT NULL,
    reason VARCHAR NOT NULL
);
COMMENT ON TABLE refusals IS 'What sandboxes asked of the network and may not reach: once a host, port and attempt.';
COMMENT ON COLUMN refusals.sequence IS 'The stream sequence of the event.';
COMMENT ON COLUMN refusals.host IS 'As it was asked for; empty where an attempt''s further ones are not told.';
COMMENT ON COLUMN refusals.reason IS 'What the user was told.';

CREATE TABLE IF NOT EXISTS users (
    user_id VARCHAR NOT NULL,
    name VARCHAR,
    role VARCHAR,
    added_at TIMESTAMPTZ
);
COMMENT ON TABLE users IS 'Who may use this installation.';
COMMENT ON COLUMN users.role IS 'owner, user, or removed.';

CREATE TABLE IF NOT EXISTS tasks (
    task_id VARCHAR NOT NULL,
    user_id VARCHAR NOT NULL,
    title VARCHAR,
    prompt VARCHAR,
    repository VARCHAR,
    base VARCHAR,
    model VARCHAR,
    queue VARCHAR,
    state VARCHAR,
    reason VARCHAR,
    question VARCHAR,
    delayed_until TIMESTAMPTZ,
    created_at TIMESTAMPTZ,
    updated_at TIMESTAMPTZ,
    turns INTEGER,
    attempts INTEGER,
    messages INTEGER,
    summary VARCHAR,
    branch VARCHAR,
    commit VARCHAR,
    base_commit VARCHAR,
    pushed_to VARCHAR,
    files_changed INTEGER,
    insertions INTEGER,
    deletions INTEGER,
    input_tokens BIGINT,
    cache_read_tokens BIGINT,
    cache_write_tokens BIGINT,
    output_tokens BIGINT,
    cost_usd DOUBLE,
    fold VARCHAR
);
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS pull_request VARCHAR;
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS priority INTEGER;
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS labels VARCHAR;
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS schedule VARCHAR;
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS start_at TIMESTAMPTZ;
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS archived_at TIMESTAMPTZ;
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS fork_of VARCHAR;
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS tags VARCHAR[];
ALTER TABLE tasks ADD COLUMN IF NOT EXISTS metadata MAP(VARCHAR, VARCHAR);
COMMENT ON TABLE tasks IS 'One row a task, as it is now.';
COMMENT ON COLUMN tasks.base IS 'The branch, tag or commit asked for; empty means the default branch.';
COMMENT ON COLUMN tasks.model IS 'As asked for; empty means the default. attempts.model is what it was.';
COMMENT ON COLUMN tasks.queue IS 'Whose runners it waits for.';
COMMENT ON COLUMN tasks.schedule IS 'The id of the schedule that submitted it; empty where a person did.';
COMMENT ON COLUMN tasks.start_at IS 'Not before this time; null means at once.';
COMMENT ON COLUMN tasks.labels IS 'What its runner must have, separated by commas.';
COMMENT ON COLUMN tasks.fork_of IS 'The task whose work it started from; null for one that started from its base.';
COMMENT ON COLUMN tasks.tags IS 'What the user marked it with: list_contains(tags, ''bug'').';
COMMENT ON COLUMN tasks.metadata IS 'The user''s own values under names: metadata[''customer''].';
COMMENT ON COLUMN tasks.priority IS 'Which of its user''s tasks goes first: -10 to 10.';
COMMENT ON COLUMN tasks.state IS 'queued, running, waiting, delayed, paused; or how the last turn ended: succeeded, failed, cancelled.';
COMMENT ON COLUMN tasks.reason IS 'Why it waits, is delayed, failed or was cancelled.';
COMMENT ON COLUMN tasks.question IS 'What it asks the user now.';
COMMENT ON COLUMN tasks.updated_at IS 'When the last decision over it was made.';
COMMENT ON COLUMN tasks.turns IS 'How many turns were opened.';
COMMENT ON COLUMN tasks.attempts IS 'How many attempts were made at all its turns.';
COMMENT ON COLUMN tasks.messages IS 'How many the user sent after the prompt.';
COMMENT ON COLUMN tasks.commit IS 'The last commit that was published, with the columns around it.';
COMMENT ON COLUMN tasks.pull_request IS 'Its URL, where one was opened for the branch.';
COMMENT ON COLUMN tasks.archived_at IS 'Since when its events are in the archive and no longer in the stream; null once it goes on.';
COMMENT ON COLUMN tasks.cost_usd IS 'Of all ended turns, as are the token counts; steps has what the open turn has cost so far.';
COMMENT ON COLUMN tasks.fold IS 'The task''s whole state as JSON (protocol/evolve.py); the history goes on from here after a restart.';

CREATE TABLE IF NOT EXISTS turns (
    task_id VARCHAR NOT NULL,
    turn INTEGER NOT NULL,
    user_id VARCHAR,
    message VARCHAR,
    opened_at TIMESTAMPTZ,
    ended_at TIMESTAMPTZ,
    outcome VARCHAR,
    reason VARCHAR,
    summary VARCHAR,
    branch VARCHAR,
    commit VARCHAR,
    base_commit VARCHAR,
    pushed_to VARCHAR,
    files_changed INTEGER,
    insertions INTEGER,
    deletions INTEGER,
    input_tokens BIGINT,
    cache_read_tokens BIGINT,
    cache_write_tokens BIGINT,
    output_tokens BIGINT,
    cost_usd DOUBLE
);
ALTER TABLE turns ADD COLUMN IF NOT EXISTS pull_request VARCHAR;
ALTER TABLE turns ADD COLUMN IF NOT EXISTS retries INTEGER;
COMMENT ON TABLE turns IS 'From one message of the user to the outcome it led to.';
COMMENT ON COLUMN turns.turn IS 'Counts from 1 in the task.';
COMMENT ON COLUMN turns.message IS 'What the user asked for.';
COMMENT ON COLUMN turns.retries IS 'The turn whose wish it repeats; null for one that a message opened.';
COMMENT ON COLUMN turns.ended_at IS 'Null while the turn is open.';
COMMENT ON COLUMN turns.outcome IS 'succeeded, failed or cancelled.';
COMMENT ON COLUMN turns.cost_usd IS 'Of all the turn''s attempts, as are the token counts; known when the turn has ended.';

CREATE TABLE IF NOT EXISTS attempts (
    task_id VARCHAR NOT NULL,
    attempt INTEGER NOT NULL,
    user_id VARCHAR,
    turn INTEGER,
    runner VARCHAR,
    queued_at TIMESTAMPTZ,
    claimed_at TIMESTAMPTZ,
    started_at TIMESTAMPTZ,
    ended_at TIMESTAMPTZ,
    how VARCHAR,
    reason VARCHAR,
    model VARCHAR,
    scripted BOOLEAN,
    sandbox VARCHAR,
    base_commit VARCHAR,
    branch VARCHAR,
    restored_step INTEGER,
    input_tokens BIGINT,
    cache_read_tokens BIGINT,
    cache_write_tokens BIGINT,
    output_tokens BIGINT,
    cost_usd DOUBLE
);
COMMENT ON TABLE attempts IS 'One try at a turn by one runner.';
COMMENT ON COLUMN attempts.attempt IS 'Counts from 1 through the whole task.';
COMMENT ON COLUMN attempts.queued_at IS 'Since when the task had waited for a slot.';
COMMENT ON COLUMN attempts.claimed_at IS 'When the runner got it.';
COMMENT ON COLUMN attempts.started_at IS 'When the agent began, with workspace and sandbox under way.';
COMMENT ON COLUMN attempts.ended_at IS 'Null while the runner holds it.';
COMMENT ON COLUMN attempts.how IS 'finished, failed, parked, cancelled or lease_lost.';
COMMENT ON COLUMN attempts.scripted IS 'True when the scripted model answered and not Claude.';
COMMENT ON COLUMN attempts.restored_step IS 'The last step of earlier attempts whose effect was still there.';

CREATE TABLE IF NOT EXISTS steps (
    task_id VARCHAR NOT NULL,
    step INTEGER NOT NULL,
    user_id VARCHAR,
    attempt INTEGER,
    kind VARCHAR,
    tool VARCHAR,
    input VARIANT,
    started_at TIMESTAMPTZ,
    finished_at TIMESTAMPTZ,
    duration_seconds DOUBLE,
    outcome VARCHAR,
    exit_code INTEGER,
    error VARCHAR,
    stop_reason VARCHAR,
    reserved_usd DOUBLE,
    input_tokens BIGINT,
    cache_read_tokens BIGINT,
    cache_write_tokens BIGINT,
    output_tokens BIGINT,
    cost_usd DOUBLE
);
COMMENT ON TABLE steps IS 'One model call or one tool call.';
COMMENT ON COLUMN steps.step IS 'Counts from 1 through the whole task.';
COMMENT ON COLUMN steps.kind IS 'model or tool.';
COMMENT ON COLUMN steps.tool IS 'The tool''s name; null for a model call.';
COMMENT ON COLUMN steps.input IS 'What the tool was called with: input.command and the like.';
COMMENT ON COLUMN steps.finished_at IS 'Null while it runs.';
COMMENT ON COLUMN steps.outcome IS 'ok, error (the tool said so) or lost (nobody knows how it ended).';
COMMENT ON COLUMN steps.exit_code IS 'Of a command.';
COMMENT ON COLUMN steps.error IS 'The beginning of what the tool said when it failed, or why the step was lost.';
COMMENT ON COLUMN steps.stop_reason IS 'Why the model stopped: tool_use, end_turn, ...';
COMMENT ON COLUMN steps.reserved_usd IS 'The most a model call could have cost.';
COMMENT ON COLUMN steps.cost_usd IS 'What a model call cost, with its tokens; null for a tool call.';
