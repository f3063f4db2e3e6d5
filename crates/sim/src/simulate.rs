//! The gateway's own logic under faults, by seed and in virtual time.
//!
//! One run is a small world: accounts with keys, quotas, budgets, grants and subscriptions; callers that stream, retry
//! and leave; operators who put money in, take it back, grant, revoke and set back; an upstream that fails in every way
//! it can, a disk that is slow and sometimes refuses, a clock that jumps over the ends of cycles and back, and a process
//! that dies (killed, or with the power) and starts again on what was durable. Everything is drawn from the seed, so a
//! run that found something can be repeated. An auditor with books of its own compares what callers saw, what the
//! upstream did, what operators did and what the journal says.
//!
//! What runs is the real [`gateway::Gateway`] over the real [`store::Ledger`]; only disk, network, clock and
//! randomness are replaced.

/// What runs of a simulation reached.
macro_rules! reached {
    ($($(#[$doc:meta])* $event:ident,)*) => {
        /// What happened in a run: shows that a run was not blind.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Reached {
            $($(#[$doc])* pub $event: u64,)*
        }

        impl Reached {
            /// Adds another run's.
            pub fn add(&mut self, other: &Self) {
                $(self.$event += other.$event;)*
            }

            /// Names of what never happened.
            pub fn missing(&self) -> Vec<&'static str> {
                let times = [$((stringify!($event), self.$event)),*];
                times.into_iter().filter(|(_, times)| *times == 0).map(|(event, _)| event).collect()
            }
        }
    };
}

mod auditor;
mod caller;
mod holder;
pub mod limits;
mod operator;
mod setting;
mod upstream;
mod world;

use auditor::Auditor;
pub use auditor::Reached;
use std::rc::Rc;
use world::{Process, World};

/// What a run found.
#[derive(Debug)]
pub struct Report {
    /// The seed that repeats it.
    pub seed: u64,
    /// What happened in it.
    pub reached: Reached,
}

/// Runs one seed to its end. An error is a broken promise, in words.
pub fn run(seed: u64) -> Result<Report, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|error| error.to_string())?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let auditor = Rc::new(Auditor::default());
        let world = World::new(seed, auditor.clone());
        world.live().await;
        auditor.verdict().map(|reached| Report { seed, reached })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fast lane's share; `cargo xtask sim --seeds N` runs more.
    #[test]
    fn a_few_seeds_keep_every_promise() {
        let mut reached = Reached::default();
        for seed in 1..=20 {
            reached.add(&run(seed).unwrap_or_else(|broken| panic!("seed {seed}: {broken}")).reached);
        }
        assert!(reached.charges > 100 && reached.crashes > 5 && reached.refused > 5, "{reached:?}");
        assert!(reached.paid_by_several > 5 && reached.subscribed > 5 && reached.credits_again > 20, "{reached:?}");
    }

    #[test]
    fn a_seed_repeats_itself() {
        assert_eq!(format!("{:?}", run(7)), format!("{:?}", run(7)));
    }
}
