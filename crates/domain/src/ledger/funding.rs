//! Who pays: splitting a hold over grants, subscription and wallet, and a charge over the parts of its hold.
//!
//! The order is fixed: grants by soonest expiry, then the subscription, then the wallet. A charge uses up the parts of
//! its hold in that order, and what is left of each goes back to where it came from (M-18, M-41).

use super::entry::{Part, Source};
use crate::money::Nanos;

/// Parts with sources merged, in the order in which they are used up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Split {
    parts: Vec<Part>,
}

/// What one kind of source can still give.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Money.
    pub(super) money: i64,
    /// Tokens, where the source counts them.
    pub(super) tokens: Option<u64>,
}

/// What a source gives to a request that needs so much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) money: i64,
    pub(super) tokens: u64,
}

/// What is taken from a source with `room` for a request of which `money` and `tokens` are still to be covered.
///
/// A source that counts tokens covers the same share of both: half of the tokens cover half of the money, rounded
/// **down**, so that what others have to pay is rounded up. More money and more tokens never take less from the others,
/// so a charge within its hold never needs more of any source than was held.
pub(super) fn given(room: Room, money: i64, tokens: u64) -> Given {
    let by_money = money.min(room.money).max(0);
    let Some(left) = room.tokens else { return Given { money: by_money, tokens: 0 } };
    if tokens == 0 {
        return Given { money: by_money, tokens: 0 };
    }
    let covered = tokens.min(left);
    let by_tokens = scaled_down(money, covered, tokens);
    let given = by_money.min(by_tokens);
    let tokens = if given == money { covered } else { scaled_up(tokens, given, money).min(covered) };
    Given { money: given, tokens }
}

/// The tokens that belong to `money` of `whole`, rounded **up**. All of them where nothing costs anything.
pub(super) fn tokens_for(tokens: u64, money: i64, whole: i64) -> u64 {
    if whole == 0 { tokens } else { scaled_up(tokens, money, whole) }
}

/// `amount × part / whole`, rounded **down**.
fn scaled_down(amount: i64, part: u64, whole: u64) -> i64 {
    let scaled = i128::from(amount) * i128::from(part) / i128::from(whole);
    i64::try_from(scaled).expect("a share is not more than the whole")
}

/// `amount × part / whole`, rounded **up**.
fn scaled_up(amount: u64, part: i64, whole: i64) -> u64 {
    let product = i128::from(amount) * i128::from(part);
    let whole = i128::from(whole);
    let scaled = product / whole + i128::from(product % whole != 0);
    u64::try_from(scaled).expect("a share is not more than the whole")
}

impl Split {
    /// Parts as an entry has them. None means all of `whole` from the wallet.
    pub(super) fn of(parts: &[Part], whole: Nanos) -> Self {
        let mut split = Self::default();
        match parts {
            [] => split.add(Source::Wallet, whole.0, 0),
            parts => parts.iter().for_each(|part| split.add(part.source.clone(), part.amount.0, part.tokens)),
        }
        split
    }

    /// Adds to the part from that source. Nothing adds no part.
    pub(super) fn add(&mut self, source: Source, money: i64, tokens: u64) {
        if money == 0 && tokens == 0 {
            return;
        }
        match self.parts.iter_mut().find(|part| part.source == source) {
            Some(part) => {
                part.amount.0 += money;
                part.tokens += tokens;
            }
            None => {
                self.parts.push(Part { source, amount: Nanos(money), tokens });
                // Grants stand in the order in which they were taken, which is that of their expiry.
                self.parts.sort_by_key(|part| rank(&part.source));
            }
        }
    }

    /// Adds every part of another split.
    pub(super) fn add_all(&mut self, other: &Self) {
        for part in &other.parts {
            self.add(part.source.clone(), part.amount.0, part.tokens);
        }
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What comes from the wallet.
    pub(super) fn wallet(&self) -> i64 {
        self.sum(|source| *source == Source::Wallet)
    }

    /// What comes from grants.
    pub(super) fn granted(&self) -> i64 {
        self.sum(|source| matches!(source, Source::Grant(_)))
    }

    /// What the subscription pays.
    pub(super) fn plan(&self) -> i64 {
        self.sum(|source| matches!(source, Source::Plan(_)))
    }

    fn sum(&self, wanted: impl Fn(&Source) -> bool) -> i64 {
        self.parts.iter().filter(|part| wanted(&part.source)).map(|part| part.amount.0).sum()
    }

    /// As an entry has them: nothing is written where all comes from the wallet, which is the usual case.
    pub(super) fn into_parts(self) -> Vec<Part> {
        match self.parts.as_slice() {
            [] => Vec::new(),
            [only] if only.source == Source::Wallet => Vec::new(),
            _ => self.parts,
        }
    }

    /// Splits a charge over the parts of its hold: each source in order gives what it held. What is beyond the hold is
    /// the second answer, in money and tokens.
    pub(super) fn pay(&self, cost: i64, tokens: u64) -> (Self, Given) {
        let mut paid = Self::default();
        let mut left = cost;
        let mut left_tokens = tokens;
        for part in &self.parts {
            // Only the subscription counts tokens. Those that belong to money which grants have paid are not its.
            let counts_tokens = part.tokens > 0;
            let room = Room { money: part.amount.0, tokens: counts_tokens.then_some(part.tokens) };
            let needed = if counts_tokens { tokens_for(tokens, left, cost).min(left_tokens) } else { 0 };
            let given = given(room, left, needed);
            paid.add(part.source.clone(), given.money, given.tokens);
            left -= given.money;
            left_tokens -= given.tokens;
        }
        let beyond =
            Given { money: left, tokens: if left > 0 { tokens_for(tokens, left, cost).min(left_tokens) } else { 0 } };
        (paid, beyond)
    }
}

fn rank(source: &Source) -> u8 {
    match source {
        Source::Grant(_) => 0,
        Source::Plan(_) => 1,
        Source::Wallet => 2,
    }
}
