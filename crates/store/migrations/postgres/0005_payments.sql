-- Money in by card: what was quoted, what the provider said, and what followed from it. The money itself moves by
-- rows of `credits`, written in the same transaction.
-- `amount` and `reversed` are minor units of the order's currency; `credit` and `taken` are nano-USD, `rate` nano-USD
-- per unit of the currency. `method` is the saved card that an automatic order charges: asked again, it is the same.

create table payment_orders (
  id text primary key,
  account bigint not null references accounts (id),
  provider text not null,
  livemode bigint not null,
  purpose text not null check (purpose in ('checkout', 'auto')),
  amount bigint not null check (amount > 0),
  currency text not null,
  rate bigint not null check (rate > 0),
  credit bigint not null check (credit > 0),
  state text not null check (state in ('pending', 'processing', 'paid', 'failed', 'cancelled', 'expired')),
  session text,
  payment text,
  method text,
  failure text,
  created_at bigint not null,
  changed_at bigint not null
);

create index payment_orders_by_account on payment_orders (account, created_at);
create index payment_orders_by_time on payment_orders (created_at);
create index payment_orders_open on payment_orders (created_at) where state in ('pending', 'processing');
-- I-12: a provider's payment pays one order.
create unique index payment_orders_by_payment on payment_orders (provider, payment) where payment is not null;
create unique index payment_orders_by_session on payment_orders (provider, session) where session is not null;

-- Every event of a provider that was accepted, once. A parked one keeps its content until `parent` is known.
create table payment_events (
  provider text not null,
  id text not null,
  kind text not null,
  outcome text not null check (outcome in ('applied', 'ignored', 'parked', 'refused')),
  reason text,
  parent text,
  deed text,
  livemode bigint not null,
  created_at bigint not null,
  received_at bigint not null,
  primary key (provider, id)
);

create index payment_events_parked on payment_events (provider, parent) where outcome = 'parked';
create index payment_events_by_time on payment_events (received_at);

create table payment_refunds (
  provider text not null,
  id text not null,
  order_id text not null references payment_orders (id),
  amount bigint not null check (amount > 0),
  reversed bigint not null check (reversed >= 0),
  taken bigint not null check (taken >= 0),
  state text not null check (state in ('pending', 'succeeded', 'failed')),
  created_at bigint not null,
  changed_at bigint not null,
  primary key (provider, id)
);

create index payment_refunds_by_order on payment_refunds (order_id);

-- `suspended`: the account is suspended because of this one; winning it lifts that.
create table payment_disputes (
  provider text not null,
  id text not null,
  order_id text not null references payment_orders (id),
  account bigint not null,
  amount bigint not null,
  reversed bigint not null check (reversed >= 0),
  taken bigint not null check (taken >= 0),
  state text not null check (state in ('inquiry', 'opened', 'won', 'lost', 'dismissed')),
  suspended bigint not null default 0,
  reason text not null,
  created_at bigint not null,
  changed_at bigint not null,
  primary key (provider, id)
);

create index payment_disputes_by_order on payment_disputes (order_id);
create index payment_disputes_by_account on payment_disputes (account);

-- An account as its provider knows it.
create table payment_customers (
  provider text not null,
  account bigint not null references accounts (id),
  livemode bigint not null,
  customer text not null,
  created_at bigint not null,
  primary key (provider, account, livemode)
);

create unique index payment_customers_by_customer on payment_customers (provider, customer);

-- Saved cards: the provider's name for them and what a person recognises them by. No card number ever comes here.
create table payment_methods (
  provider text not null,
  id text not null,
  account bigint not null references accounts (id),
  livemode bigint not null,
  brand text,
  last4 text,
  exp_month bigint,
  exp_year bigint,
  created_at bigint not null,
  primary key (provider, id)
);

create index payment_methods_by_account on payment_methods (account, created_at);

create table auto_top_ups (
  account bigint primary key references accounts (id),
  enabled bigint not null,
  threshold bigint not null,
  amount bigint not null check (amount > 0),
  currency text not null,
  monthly_max bigint not null check (monthly_max >= 0),
  failures bigint not null default 0,
  reason text,
  retry_at bigint,
  changed_at bigint not null
);

create index auto_top_ups_on on auto_top_ups (account) where enabled = 1;
