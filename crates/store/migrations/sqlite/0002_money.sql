-- The whole of money: more pots, who pays by parts, budgets, plans, grants, codes, credits on their way.

-- The journal gets more pots, so the check that its legs sum to zero is another one, and SQLite can change no check:
-- the rows move into a new table. `previous` is the account's entry before: reading an account backwards needs no index.
drop trigger journal_is_append_only_update;
drop trigger journal_is_append_only_delete;
alter table journal rename to journal_of_the_spine;

create table journal (
  seq integer primary key,
  at integer not null,
  kind integer not null,
  account integer not null,
  previous integer not null default 0,
  available integer not null,
  granted integer not null default 0,
  held integer not null,
  spent integer not null,
  fees integer not null default 0,
  debt integer not null,
  funding integer not null,
  plan integer not null default 0,
  promotion integer not null default 0,
  key integer,
  hold integer,
  price integer,
  multiplier integer,
  lease_until integer,
  ending integer,
  estimated integer,
  usage text,
  model text,
  upstream text,
  request text,
  service_tier text,
  parts text,
  counted text,
  reference text,
  detail text,
  check (available + granted + held + spent + fees + debt + funding + plan + promotion = 0)
) strict;

insert into journal (seq, at, kind, account, previous, available, held, spent, debt, funding, key, hold, price,
                     lease_until, ending, estimated, usage, model, upstream, request, service_tier, detail)
select seq, at, kind, account, coalesce(lag(seq) over (partition by account order by seq), 0),
       available, held, spent, debt, funding, key, hold, price, lease_until, ending, estimated, usage, model, upstream,
       request, service_tier,
       case kind when 1 then
         json_object('origin', 'top_up', 'by', 'operator', 'note', coalesce(note, ''), 'reference', null)
       end
from journal_of_the_spine
order by seq;

drop table journal_of_the_spine;

-- At most one entry for each thing that happened outside.
create unique index journal_by_reference on journal (reference) where reference is not null;

create trigger journal_is_append_only_update before update on journal
begin select raise(abort, 'journal rows are never changed'); end;

create trigger journal_is_append_only_delete before delete on journal
begin select raise(abort, 'journal rows are never deleted'); end;

-- Folds. `last_seq`: the account's last entry in the sums.
alter table balances add column granted integer not null default 0;
alter table balances add column fees integer not null default 0;
alter table balances add column plan integer not null default 0;
alter table balances add column promotion integer not null default 0;
alter table balances add column last_seq integer not null default 0;
update balances set last_seq =
  (select max(seq) from journal where journal.account = balances.account and seq <= (select applied from progress));

alter table key_totals add column forgiven integer not null default 0;
alter table key_totals add column forgiven_tokens integer not null default 0;

-- What moved on each day (UTC), and the day's last entry: where a statement begins without reading all that was before.
create table account_daily (
  account integer not null,
  day integer not null,
  available integer not null,
  granted integer not null,
  held integer not null,
  spent integer not null,
  fees integer not null,
  debt integer not null,
  funding integer not null,
  plan integer not null,
  promotion integer not null,
  last_seq integer not null,
  primary key (account, day)
) strict, without rowid;

insert into account_daily
select account, at / 86400000, sum(available), 0, sum(held), sum(spent), 0, sum(debt), sum(funding), 0, 0, max(seq)
from journal where seq <= (select applied from progress) group by 1, 2;

-- Grants that are not used up. The id is the entry that gave it.
create table grants (
  id integer primary key,
  account integer not null,
  amount integer not null,
  remaining integer not null,
  held integer not null,
  expires_at integer
) strict;

create index grants_by_account on grants (account);
create index grants_by_expiry on grants (expires_at) where remaining > 0;

-- What became of each account's subscription; no state when it has ended. `free_until`: until then a plan that costs
-- nothing has given its allowance.
create table subscriptions (
  account integer primary key,
  plan integer,
  state text,
  cycle_ends_at integer,
  free_until integer
) strict;

create index subscriptions_by_cycle_end on subscriptions (cycle_ends_at);

-- What was used of a subscription: its cycle is slot 0, its windows follow.
create table plan_counters (
  account integer not null,
  slot integer not null,
  starts_at integer not null,
  ends_at integer not null,
  used_money integer not null,
  used_tokens integer not null,
  used_requests integer not null,
  held_money integer not null,
  held_tokens integer not null,
  held_requests integer not null,
  primary key (account, slot, starts_at)
) strict, without rowid;

create table budget_counters (
  account integer not null,
  budget integer not null,
  subject text not null,
  starts_at integer not null,
  ends_at integer not null,
  used_money integer not null,
  used_tokens integer not null,
  used_requests integer not null,
  held_money integer not null,
  held_tokens integer not null,
  held_requests integer not null,
  primary key (account, budget, subject, starts_at)
) strict, without rowid;

-- Definitions.
create table budgets (
  id integer primary key,
  account integer not null references accounts (id),
  name text not null,
  scope text not null,
  each text not null,
  metric text not null check (metric in ('money', 'tokens', 'requests')),
  most integer not null check (most >= 0),
  period text not null,
  status text not null default 'active' check (status in ('active', 'deleted')),
  created_at integer not null
) strict;

create index budgets_by_account on budgets (account);

create table plans (
  id integer primary key,
  name text not null unique,
  terms text not null,
  status text not null default 'active' check (status in ('active', 'retired')),
  created_at integer not null
) strict;

-- Money from outside on its way into the ledger: written with the deed that causes it, posted once, by its reference.
create table credits (
  reference text primary key,
  account integer not null references accounts (id),
  kind text not null,
  amount integer not null,
  note text not null,
  made_by text not null,
  expires_at integer,
  created_at integer not null,
  seq integer,
  failure text
) strict;

create index credits_on_their_way on credits (created_at) where seq is null and failure is null;

create table codes (
  id integer primary key,
  digest blob not null unique,
  hint text not null,
  batch text not null,
  amount integer not null check (amount > 0),
  grant_days integer,
  uses integer not null check (uses > 0),
  used integer not null default 0 check (used <= uses),
  expires_at integer,
  status text not null default 'active' check (status in ('active', 'revoked')),
  created_by text not null,
  created_at integer not null
) strict;

create index codes_by_batch on codes (batch);

create table redemptions (
  code integer not null references codes (id),
  account integer not null references accounts (id),
  redeemed_at integer not null,
  primary key (code, account)
) strict, without rowid;

-- Tiers of accounts: what has to be paid, and for how long, to be promoted.
create table tiers (
  id integer primary key,
  name text not null unique,
  paid integer check (paid >= 0),
  days integer not null default 0 check (days >= 0),
  multiplier integer not null default 1000000,
  monthly integer
) strict;

insert into tiers (id, name, paid, days, monthly) values
  (0, 'Free', 0, 0, 0),
  (1, 'Tier 1', 1, 0, 100000000000),
  (2, 'Tier 2', 100000000000, 0, 500000000000),
  (3, 'Tier 3', 500000000000, 0, 1000000000000),
  (4, 'Tier 4', 1000000000000, 0, 5000000000000),
  (5, 'Tier 5', null, 0, null);

alter table accounts add column tier integer not null default 0;
alter table accounts add column tier_fixed integer not null default 0;
alter table accounts add column paid integer not null default 0;
alter table accounts add column first_paid_at integer;
alter table accounts add column multiplier integer;
