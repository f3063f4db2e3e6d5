//! Any answer of any provider is understood: a cause, a time within bounds, an error that a caller can read and that stays
//! inside its event.

#![no_main]

use domain::Timestamp;
use domain::time::DAY_MS;
use libfuzzer_sys::fuzz_target;
use protocol::dialect::Dialect;
use protocol::failure::{Failure, Fault, Pasted};
use protocol::headroom::Headroom;
use protocol::provider::Provider;

/// 2026-11-22T10:00:00Z
const NOW: Timestamp = Timestamp(1_795_341_600_000);

fuzz_target!(|text: &str| {
    let Ok(pasted) = Pasted::read(text) else { return };
    let guessed = pasted.provider();
    let status = pasted.status.unwrap_or(429);
    for provider in Provider::ALL {
        check(Failure::read(provider, status, &pasted.headers, &pasted.body, NOW));
        if let Some(failure) = Failure::inside(provider, &pasted.headers, &pasted.body, NOW) {
            check(failure);
        }
        for reading in Headroom::read(provider, &pasted.headers, NOW).iter() {
            assert!(reading.resets_at.is_none_or(within_reach), "{reading:?}");
        }
    }
    if let Some(failure) = pasted.failure(guessed, pasted.answered_at(NOW)) {
        _ = failure.remedy();
    }
});

fn check(failure: Failure) {
    assert_eq!(failure.recovery.is_some(), failure.cause.passes());
    assert!(failure.recovery.as_ref().is_none_or(|recovery| within_reach(recovery.at)), "{failure:?}");
    let error = failure.caller_error(NOW);
    assert!((400..600).contains(&error.status) && !error.message.is_empty());
    if failure.fault() == Fault::Account {
        let told = failure.told.message.trim();
        assert!(told.len() < 20 || !error.message.contains(told), "the operator's trouble is told to a caller");
    }
    for dialect in Dialect::ALL {
        let event = error.event(dialect, None);
        let lines = event.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        assert!(lines <= 2 && !event.contains(&b'\r'), "more than one event");
    }
}

fn within_reach(at: Timestamp) -> bool {
    at >= NOW && at.0 - NOW.0 <= 32 * DAY_MS
}
