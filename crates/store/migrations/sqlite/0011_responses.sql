-- Answers that a provider keeps, so that later requests can go on from them: whose they are, and where.
create table responses (
  account integer not null references accounts (id),
  id text not null,
  project integer,
  upstream text not null,
  -- Tokens of the conversation up to its end.
  tokens integer not null check (tokens >= 0),
  expires_at integer not null,
  primary key (account, id)
) strict, without rowid;

create index responses_by_expiry on responses (expires_at);
