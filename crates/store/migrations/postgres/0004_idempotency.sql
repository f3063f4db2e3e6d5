-- What requests with an `Idempotency-Key` came to. Bodies are sealed, keys and requests are keyed digests.

create table idempotency (
  id bigint generated always as identity primary key,
  tenant text not null,
  key_digest bytea not null,
  fingerprint bytea not null,
  state text not null check (state in ('running', 'unknown', 'done')),
  request text not null,
  -- No hold of the request is at or before this row of the journal; null if it holds no money.
  after_seq bigint,
  -- Of a done one: its answer, or why there is none to be replayed.
  status bigint,
  headers text,
  body bytea,
  lost text check (lost in ('too_large', 'caller_left', 'interrupted')),
  cost bigint,
  created_at bigint not null,
  expires_at bigint,
  unique (tenant, key_digest),
  check ((state = 'done') = (expires_at is not null)),
  check (state <> 'done' or (lost is null) = (status is not null and headers is not null and body is not null))
);

create index idempotency_by_expiry on idempotency (expires_at) where expires_at is not null;

create index idempotency_unfinished on idempotency (state) where state <> 'done';
