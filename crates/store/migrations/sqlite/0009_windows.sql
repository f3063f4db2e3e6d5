-- A subscription's counters are known by their periods: the cycle's are in slot 0, those of windows in slot 1, wherever a
-- window stands in a plan.
alter table plan_counters rename to plan_counters_by_place;

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
  primary key (account, slot, starts_at, ends_at)
) strict, without rowid;

insert into plan_counters
select account, case slot when 0 then 0 else 1 end, starts_at, ends_at, sum(used_money), sum(used_tokens),
       sum(used_requests), sum(held_money), sum(held_tokens), sum(held_requests)
from plan_counters_by_place group by 1, 2, 3, 4;

drop table plan_counters_by_place;
