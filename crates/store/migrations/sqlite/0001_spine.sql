-- The spine: who pays, who calls, what it costs, and the journal of every nano-USD.
-- Amounts are nano-USD, times are milliseconds since 1970 in UTC.

create table accounts (
  id integer primary key,
  name text not null unique,
  status text not null default 'active' check (status in ('active', 'suspended')),
  error_profile text,
  shows_upstream integer not null default 0,
  created_at integer not null
) strict;

create table keys (
  id integer primary key,
  account integer not null references accounts (id),
  name text not null,
  hint text not null,
  status text not null default 'active' check (status in ('active', 'blocked', 'deleted')),
  expires_at integer,
  quota_nanos integer check (quota_nanos >= 0),
  quota_tokens integer check (quota_tokens >= 0),
  models text,
  addresses text,
  error_profile text,
  created_at integer not null
) strict;

create index keys_by_account on keys (account, name);

-- What callers present, as digests. A rotated key has two for a while.
create table key_secrets (
  digest blob primary key,
  key integer not null references keys (id),
  valid_until integer
) strict, without rowid;

create index key_secrets_by_key on key_secrets (key);

create table operators (
  id integer primary key,
  name text not null unique,
  digest blob not null unique,
  created_at integer not null
) strict;

-- Versions of prices. Rows are never changed: a new price is a new row, and charges keep theirs.
create table prices (
  id integer primary key,
  provider text,
  model text not null,
  source text not null check (source in ('book', 'config', 'operator')),
  mode text,
  sheet text not null,
  retired integer not null default 0,
  created_at integer not null
) strict;

create index prices_by_model on prices (model, provider, source);

-- The journal: append-only, one row an entry, the legs of each row sum to zero.
create table journal (
  seq integer primary key,
  at integer not null,
  kind integer not null,
  account integer not null,
  available integer not null,
  held integer not null,
  spent integer not null,
  debt integer not null,
  funding integer not null,
  key integer,
  hold integer,
  price integer,
  lease_until integer,
  ending integer,
  estimated integer,
  usage text,
  model text,
  upstream text,
  request text,
  service_tier text,
  note text,
  check (available + held + spent + debt + funding = 0)
) strict;

create trigger journal_is_append_only_update before update on journal
begin select raise(abort, 'journal rows are never changed'); end;

create trigger journal_is_append_only_delete before delete on journal
begin select raise(abort, 'journal rows are never deleted'); end;

-- Folds of the journal up to `progress.applied`, kept so that a start does not read the whole journal.
create table balances (
  account integer primary key,
  available integer not null,
  held integer not null,
  spent integer not null,
  debt integer not null,
  funding integer not null
) strict;

create table key_totals (
  key integer primary key,
  used integer not null,
  held integer not null,
  used_tokens integer not null,
  held_tokens integer not null,
  requests integer not null,
  last_used_at integer
) strict;

create table usage_daily (
  key integer not null,
  day integer not null,
  model text not null,
  account integer not null,
  requests integer not null,
  input_tokens integer not null,
  cached_tokens integer not null,
  output_tokens integer not null,
  cost integer not null,
  primary key (key, day, model)
) strict, without rowid;

create index usage_daily_by_account on usage_daily (account, day);

-- `applied`: the last journal row in the folds. `oldest_open`: no hold before this row is open.
create table progress (
  one integer primary key check (one = 1),
  applied integer not null,
  oldest_open integer not null
) strict;

insert into progress values (1, 0, 1);

-- What operators did, beside money.
create table audit (
  id integer primary key,
  at integer not null,
  operator text not null,
  action text not null,
  subject text not null,
  detail text not null
) strict;

create table settings (
  name text primary key,
  value text not null
) strict;
