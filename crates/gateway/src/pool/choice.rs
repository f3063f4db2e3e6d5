//! Which of several upstreams is asked.
//!
//! Who rests is not asked. Who stands aside – over four fifths of a limit used, or in less than half health – is asked only
//! where nobody else is left, and whom the request would not fit only after that. Among the others two are drawn by weight
//! and the less busy one is taken: always to take the best would send everybody to the same one at once.

use domain::Nanos;

/// Above that part of a limit an upstream stands aside, in millionths.
const ASIDE_PPM: u64 = 800_000;
/// Below that health it stands aside.
const ASIDE_HEALTH: f32 = 0.5;
/// All of a limit, in millionths.
const WHOLE_PPM: u64 = 1_000_000;
/// No share is so small that nobody would ever be drawn.
const SHARE_MIN: f32 = 0.001;

/// An upstream that could serve a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// [`Health::value`](super::Health::value), 0 to 1.
    pub health: f32,
    /// The part of its tightest limit that the request would bring it to, in millionths.
    pub used_ppm: u64,
    /// What the request is expected to cost the operator there.
    pub cost: Nanos,
    /// Milliseconds to the first byte, as far as known.
    pub latency_ms: Option<f32>,
    /// Requests that are open there.
    pub open: u32,
    /// How much of the traffic it is to get beside others.
    pub weight: u32,
    /// The part of it that it is asked for now, in thousandths; 0: not at all. See [`Standing`](super::Standing).
    pub share: u32,
}

/// How one is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// By health, headroom and cost.
    Score,
    /// By weight alone.
    Weighted,
    /// With the fewest open requests for its weight.
    LeastBusy,
    /// With the shortest time to the first byte; one that was never measured is measured first.
    Fastest,
    /// At the least cost.
    Cheapest,
    /// The first that is well.
    Ordered,
}

/// What a score is made of. They need not sum up to one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    /// Of health.
    pub health: f32,
    /// Of what is left of limits.
    pub availability: f32,
    /// Of cost.
    pub cost: f32,
}

impl Default for Weights {
    fn default() -> Self {
        Self { health: 0.3, availability: 0.4, cost: 0.3 }
    }
}

/// Two numbers drawn at random, each 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw(pub f32, pub f32);

/// A candidate's score, 0 to 1 with weights that sum up to one. `cheapest` is the least cost of all candidates. Nothing is
/// charged by it: a ratio of two costs needs no exactness.
pub fn score(candidate: &Candidate, cheapest: Nanos, weights: &Weights) -> f32 {
    let availability = 1.0 - candidate.used_ppm.min(WHOLE_PPM) as f32 / WHOLE_PPM as f32;
    let cheapness = if candidate.cost <= cheapest { 1.0 } else { cheapest.0 as f32 / candidate.cost.0 as f32 };
    weights.health * candidate.health + weights.availability * availability + weights.cost * cheapness
}

/// The index of the one that is asked. `None` where all of them rest.
pub fn choose(candidates: &[Candidate], strategy: Strategy, weights: &Weights, draw: Draw) -> Option<usize> {
    let class = candidates.iter().filter_map(class).min()?;
    let fits = |candidate: &Candidate| self::class(candidate) == Some(class);
    let eligible = || candidates.iter().enumerate().filter(|(_, candidate)| fits(candidate));
    let least = |key: &dyn Fn(&Candidate) -> f64| {
        eligible().min_by(|(_, a), (_, b)| key(a).total_cmp(&key(b))).map(|(index, _)| index)
    };
    match strategy {
        Strategy::Ordered => eligible().next().map(|(index, _)| index),
        Strategy::Cheapest => eligible().min_by_key(|(_, candidate)| candidate.cost).map(|(index, _)| index),
        Strategy::Fastest => least(&|candidate| f64::from(candidate.latency_ms.unwrap_or(0.0))),
        Strategy::LeastBusy => least(&load),
        Strategy::Weighted => drawn(eligible, |candidate| share(candidate, 1.0), draw.0),
        Strategy::Score => {
            let cheapest = eligible().map(|(_, candidate)| candidate.cost).min()?;
            let share = |candidate: &Candidate| share(candidate, score(candidate, cheapest, weights));
            let (one, other) = (drawn(eligible, share, draw.0)?, drawn(eligible, share, draw.1)?);
            let busy = |index: usize| f64::from(candidates[index].open + 1) / f64::from(share(&candidates[index]));
            Some(if busy(other) < busy(one) { other } else { one })
        }
    }
}

/// How gladly it is asked, gladly first; `None` where it is not.
fn class(candidate: &Candidate) -> Option<u8> {
    match candidate {
        Candidate { share: 0, .. } => None,
        Candidate { used_ppm, .. } if *used_ppm > WHOLE_PPM => Some(2),
        Candidate { used_ppm, health, .. } if *used_ppm > ASIDE_PPM || *health < ASIDE_HEALTH => Some(1),
        _ => Some(0),
    }
}

fn share(candidate: &Candidate, score: f32) -> f32 {
    (candidate.weight as f32 * candidate.share as f32 / 1_000.0 * score).max(SHARE_MIN)
}

fn load(candidate: &Candidate) -> f64 {
    f64::from(candidate.open + 1) / f64::from(share(candidate, 1.0))
}

/// One of them, each as probable as its share is of all.
fn drawn<'c, I: Iterator<Item = (usize, &'c Candidate)>>(
    candidates: impl Fn() -> I,
    share: impl Fn(&Candidate) -> f32,
    draw: f32,
) -> Option<usize> {
    let whole: f32 = candidates().map(|(_, candidate)| share(candidate)).sum();
    let mut left = draw.clamp(0.0, 1.0) * whole;
    let mut last = None;
    for (index, candidate) in candidates() {
        last = Some(index);
        left -= share(candidate);
        if left < 0.0 {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::{Strategy, *};
    use proptest::prelude::*;

    const WELL: Candidate =
        Candidate { health: 1.0, used_ppm: 0, cost: Nanos(1_000), latency_ms: None, open: 0, weight: 1, share: 1_000 };

    fn by_score(candidates: &[Candidate], draw: Draw) -> Option<usize> {
        choose(candidates, Strategy::Score, &Weights::default(), draw)
    }

    #[test]
    fn a_score_is_of_health_headroom_and_cost() {
        let weights = Weights::default();
        assert_eq!(score(&WELL, Nanos(1_000), &weights), 1.0);
        let half = Candidate { health: 0.5, used_ppm: 500_000, cost: Nanos(2_000), ..WELL };
        assert!((score(&half, Nanos(1_000), &weights) - 0.5).abs() < 1e-6);
        let over = Candidate { used_ppm: u64::MAX, ..WELL };
        assert!((score(&over, Nanos(1_000), &weights) - 0.6).abs() < 1e-6);
        assert_eq!(score(&Candidate { cost: Nanos::ZERO, ..WELL }, Nanos::ZERO, &weights), 1.0, "free of charge");
    }

    #[test]
    fn who_stands_aside_is_asked_only_where_nobody_else_is_left() {
        let aside = Candidate { used_ppm: 850_000, ..WELL };
        let ill = Candidate { health: 0.4, ..WELL };
        let full = Candidate { used_ppm: 1_000_001, ..WELL };
        let resting = Candidate { share: 0, ..WELL };
        for draw in [0.0, 0.3, 0.6, 0.999, 1.0] {
            let draw = Draw(draw, 1.0 - draw);
            assert_eq!(by_score(&[aside, ill, full, resting, WELL], draw), Some(4));
            assert!(matches!(by_score(&[aside, ill, full, resting], draw), Some(0 | 1)));
            assert_eq!(by_score(&[full, resting], draw), Some(0));
            assert_eq!(by_score(&[resting], draw), None);
            assert_eq!(by_score(&[], draw), None);
        }
    }

    #[test]
    fn of_two_that_are_drawn_the_less_busy_one_is_taken() {
        let busy = Candidate { open: 10, ..WELL };
        assert_eq!(by_score(&[busy, WELL], Draw(0.0, 0.9)), Some(1));
        assert_eq!(by_score(&[busy, WELL], Draw(0.9, 0.0)), Some(1));
        assert_eq!(by_score(&[busy, WELL], Draw(0.0, 0.1)), Some(0), "both draws were the same one");
        let strong = Candidate { weight: 20, ..busy };
        assert_eq!(by_score(&[strong, WELL], Draw(0.0, 0.999)), Some(0), "busy, but for twenty");
    }

    #[test]
    fn every_strategy_takes_what_it_says() {
        let candidates = [
            Candidate { latency_ms: Some(300.0), cost: Nanos(3_000), open: 1, ..WELL },
            Candidate { latency_ms: Some(100.0), cost: Nanos(2_000), open: 5, weight: 10, ..WELL },
            Candidate { latency_ms: Some(200.0), cost: Nanos(1_000), open: 9, ..WELL },
        ];
        let taken = |strategy| choose(&candidates, strategy, &Weights::default(), Draw(0.5, 0.5));
        assert_eq!(taken(Strategy::Ordered), Some(0));
        assert_eq!(taken(Strategy::Fastest), Some(1));
        assert_eq!(taken(Strategy::Cheapest), Some(2));
        assert_eq!(taken(Strategy::LeastBusy), Some(1));
        assert_eq!(taken(Strategy::Weighted), Some(1));
    }

    /// Numbers that look random and are the same each time.
    fn draws() -> impl Iterator<Item = f32> {
        let mut state = 0x9e37_79b9_u32;
        std::iter::repeat_with(move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as f32 / u32::MAX as f32
        })
    }

    #[test]
    fn a_pool_gets_traffic_by_weight_and_nobody_all_of_it() {
        let mut candidates = [WELL, Candidate { weight: 2, ..WELL }, Candidate { share: 100, ..WELL }];
        let (mut counts, mut draws) = ([0; 3], draws());
        for _ in 0..31_000 {
            let draw = Draw(draws.next().unwrap(), draws.next().unwrap());
            let taken = choose(&candidates, Strategy::Weighted, &Weights::default(), draw).unwrap();
            counts[taken] += 1;
        }
        for (count, expected) in counts.into_iter().zip([10_000, 20_000, 1_000]) {
            assert!((expected * 9 / 10..expected * 11 / 10).contains(&count), "{counts:?}");
        }
        // Nothing is ever answered: what is taken stays open, and so it is spread by weight.
        for _ in 0..310 {
            let draw = Draw(draws.next().unwrap(), draws.next().unwrap());
            let taken = by_score(&candidates, draw).unwrap();
            candidates[taken].open += 1;
        }
        let open = candidates.map(|candidate| candidate.open);
        assert!((80..=120).contains(&open[0]) && (170..=225).contains(&open[1]) && open[2] <= 25, "{open:?}");
    }

    proptest! {
        /// Whoever is taken is of the best class that there is.
        #[test]
        fn nobody_is_passed_over_for_a_worse_class(
            pool in prop::collection::vec((0.0..1.0_f32, 0..2_000_000_u64, 0..10_000_i64, 0..50_u32, 1..10_u32, prop::sample::select(vec![0, 100, 1_000_u32])), 0..20),
            one in 0.0..1.0_f32,
            other in 0.0..1.0_f32,
        ) {
            let candidates: Vec<_> = pool
                .into_iter()
                .map(|(health, used_ppm, cost, open, weight, share)| Candidate { health, used_ppm, cost: Nanos(cost), latency_ms: None, open, weight, share })
                .collect();
            let best = candidates.iter().filter_map(class).min();
            for strategy in [Strategy::Score, Strategy::Weighted, Strategy::LeastBusy, Strategy::Fastest, Strategy::Cheapest, Strategy::Ordered] {
                let taken = choose(&candidates, strategy, &Weights::default(), Draw(one, other));
                prop_assert_eq!(taken.and_then(|index| class(&candidates[index])), best);
            }
        }
    }
}
