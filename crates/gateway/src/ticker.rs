//! How often a silent stream looks at the clock: for its timeouts, for keep-alives, for the end of the process.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;
use tokio::time::{Instant, Sleep};

const TICK: Duration = Duration::from_secs(1);

/// See the module's description.
pub(crate) struct Ticker(Pin<Box<Sleep>>);

impl Default for Ticker {
    fn default() -> Self {
        Self(Box::pin(tokio::time::sleep(TICK)))
    }
}

impl Ticker {
    /// Whether it has fired; it is armed again.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> bool {
        let fired = self.0.as_mut().poll(context).is_ready();
        if fired {
            self.0.as_mut().reset(Instant::now() + TICK);
            // Registers the waker for the new deadline; it cannot be over yet.
            let _ = self.0.as_mut().poll(context);
        }
        fired
    }
}
