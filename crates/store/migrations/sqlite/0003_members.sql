-- Who may look and who may change: projects, users, members, sessions; operators that can be revoked.

create table projects (
  id integer primary key,
  account integer not null references accounts (id),
  name text not null,
  status text not null default 'active' check (status in ('active', 'archived')),
  created_at integer not null,
  unique (account, name)
) strict;

-- E-mail addresses are kept in small letters: two that differ in case are one person.
create table users (
  id integer primary key,
  email text not null unique,
  name text not null,
  password text,
  status text not null default 'active' check (status in ('active', 'blocked')),
  created_at integer not null
) strict;

create table members (
  account integer not null references accounts (id),
  user_id integer not null references users (id),
  role text not null check (role in ('owner', 'admin', 'member', 'viewer')),
  created_at integer not null,
  primary key (account, user_id)
) strict, without rowid;

create index members_by_user on members (user_id, account);

-- Whoever has the secret of an invitation may become a member. No user is named: who invites does not learn whether
-- there is one. Ids of invitations and sessions are never given twice: somebody may still know a deleted one.
create table invitations (
  id integer primary key autoincrement,
  digest blob not null unique,
  account integer not null references accounts (id),
  email text not null,
  role text not null check (role in ('owner', 'admin', 'member', 'viewer')),
  created_at integer not null,
  expires_at integer not null,
  unique (account, email)
) strict;

-- Whoever has the secret may set the user's password, once.
create table password_tokens (
  user_id integer primary key references users (id),
  digest blob not null unique,
  expires_at integer not null
) strict;

create table sessions (
  id integer primary key autoincrement,
  digest blob not null unique,
  user_id integer not null references users (id),
  created_at integer not null,
  expires_at integer not null,
  last_used_at integer not null
) strict;

create index sessions_by_user on sessions (user_id, id);

-- `role`: what a key may do in the members' API; null is nothing but to look at itself. `made_by`: the user whose
-- rights bound the key's; null is an operator.
alter table keys add column project integer references projects (id);
alter table keys add column role text check (role in ('viewer', 'member', 'admin'));
alter table keys add column made_by integer references users (id);

create index keys_by_project on keys (project) where project is not null;

alter table accounts add column time_zone text not null default 'UTC';

alter table operators add column status text not null default 'active' check (status in ('active', 'revoked'));

create index audit_by_subject on audit (subject, id);
