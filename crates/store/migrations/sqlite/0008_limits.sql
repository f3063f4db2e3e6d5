-- Definitions of limits. An id is never used again: states are kept by it.
create table limits (
  id integer primary key autoincrement,
  name text not null unique,
  metric text not null,
  amount integer not null check (amount >= 0),
  time_window text not null,
  scope text not null,
  each text not null,
  created_at integer not null,
  created_by text not null
) strict;

-- Counts the changes of limits, so that whoever remembers them notices one.
create table limit_changes (
  one integer primary key check (one = 1),
  count integer not null
) strict;

insert into limit_changes (one, count) values (1, 0);

-- What was used of limits with long windows, as far as it still matters, by a hash of limit and subject in
-- hexadecimal digits.
create table limit_states (
  subject text primary key,
  state text not null,
  ends_at integer not null
) strict, without rowid;

create index limit_states_by_end on limit_states (ends_at);

-- The account that this one counts as for limits. That one is linked to none.
alter table accounts add column linked_to integer references accounts (id);

create index accounts_by_link on accounts (linked_to) where linked_to is not null;

-- How long requests of a key may wait for a place; null is not at all.
alter table keys add column wait_seconds integer check (wait_seconds > 0);
alter table keys add column priority text not null default 'normal' check (priority in ('high', 'normal', 'low'));
