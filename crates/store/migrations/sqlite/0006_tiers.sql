-- What came into an account from outside, without a look at its charges: what it has paid is the sum of these.
create index journal_funds on journal (account, seq) where kind = 1;
