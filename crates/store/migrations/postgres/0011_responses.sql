-- Answers that a provider keeps, so that later requests can go on from them: whose they are, and where.
create table responses (
  account bigint not null references accounts (id),
  id text collate "C" not null,
  project bigint,
  upstream text not null,
  -- Tokens of the conversation up to its end.
  tokens bigint not null check (tokens >= 0),
  expires_at bigint not null,
  primary key (account, id)
);

create index responses_by_expiry on responses (expires_at);
