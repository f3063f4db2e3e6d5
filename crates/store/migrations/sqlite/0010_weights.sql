-- How much of a limit that accounts share they get beside others. Null is as the account's tier.
alter table tiers add column weight integer not null default 1 check (weight between 1 and 1000);
alter table accounts add column weight integer check (weight between 1 and 1000);
