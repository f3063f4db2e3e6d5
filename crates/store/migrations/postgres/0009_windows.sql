-- A subscription's counters are known by their periods: the cycle's are in slot 0, those of windows in slot 1, wherever a
-- window stands in a plan.
alter table plan_counters rename to plan_counters_by_place;

create table plan_counters (
  account bigint not null,
  slot bigint not null,
  starts_at bigint not null,
  ends_at bigint not null,
  used_money bigint not null,
  used_tokens bigint not null,
  used_requests bigint not null,
  held_money bigint not null,
  held_tokens bigint not null,
  held_requests bigint not null,
  primary key (account, slot, starts_at, ends_at)
);

insert into plan_counters
select account, case slot when 0 then 0 else 1 end, starts_at, ends_at, sum(used_money), sum(used_tokens),
       sum(used_requests), sum(held_money), sum(held_tokens), sum(held_requests)
from plan_counters_by_place group by 1, 2, 3, 4;

drop table plan_counters_by_place;
