-- What a key wants where funds do not cover the most that a request can cost: a shorter answer, or a refusal.
alter table keys add column on_short_funds text not null default 'cap' check (on_short_funds in ('cap', 'refuse'));
