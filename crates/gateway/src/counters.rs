//! What the request path counts. Handles are made once: counting is one atomic addition.

use crate::paid::Paid;
use domain::ledger::Ending;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use std::time::Duration;

/// All counters of the request path.
pub struct Counters {
    ended: Vec<Counter>,
    input_tokens: Counter,
    output_tokens: Counter,
    charged_nanos: Counter,
    estimated: Counter,
    quarantined: Counter,
    open: Gauge,
    first_byte: Vec<Histogram>,
}

impl Counters {
    /// Registers them with the recorder that is installed, if any.
    pub fn new() -> Self {
        metrics::describe_counter!("tollgate_requests_total", "Requests that reached an upstream, by how they ended");
        metrics::describe_counter!("tollgate_failures_total", "Requests that were not answered, by case");
        metrics::describe_counter!("tollgate_input_tokens_total", "Prompt tokens charged");
        metrics::describe_counter!("tollgate_output_tokens_total", "Answer tokens charged");
        metrics::describe_counter!("tollgate_charged_nano_usd_total", "Money charged, in nano-USD");
        metrics::describe_counter!("tollgate_estimated_total", "Charges by the gateway's own count");
        metrics::describe_counter!(
            "tollgate_quarantined_total",
            "Requests whose end the ledger rejected: their money stays held and their account takes no more"
        );
        metrics::describe_gauge!("tollgate_open_requests", "Requests that hold money now");
        metrics::describe_histogram!("tollgate_upstream_head_seconds", "Time until the upstream began to answer");
        let ended = Paid::all().flat_map(|endpoint| {
            Ending::ALL.map(
                |ending| counter!("tollgate_requests_total", "endpoint" => endpoint.name(), "ending" => ending.name()),
            )
        });
        Self {
            ended: ended.collect(),
            input_tokens: counter!("tollgate_input_tokens_total"),
            output_tokens: counter!("tollgate_output_tokens_total"),
            charged_nanos: counter!("tollgate_charged_nano_usd_total"),
            estimated: counter!("tollgate_estimated_total"),
            quarantined: counter!("tollgate_quarantined_total"),
            open: gauge!("tollgate_open_requests"),
            first_byte: Paid::all()
                .map(|endpoint| histogram!("tollgate_upstream_head_seconds", "endpoint" => endpoint.name()))
                .collect(),
        }
    }

    pub(crate) fn opened(&self) {
        self.open.increment(1.0);
    }

    pub(crate) fn ended(&self, endpoint: Paid, ending: Ending) {
        self.open.decrement(1.0);
        self.ended[endpoint.index() * Ending::ALL.len() + ending as usize].increment(1);
    }

    pub(crate) fn charged(&self, usage: &domain::Usage, cost: domain::Nanos, estimated: bool) {
        self.input_tokens.increment(usage.input_tokens());
        self.output_tokens.increment(usage.output_tokens());
        self.charged_nanos.increment(cost.0.unsigned_abs());
        self.estimated.increment(u64::from(estimated));
    }

    pub(crate) fn quarantined(&self) {
        self.quarantined.increment(1);
    }

    pub(crate) fn upstream_answered(&self, endpoint: Paid, after: Duration) {
        self.first_byte[endpoint.index()].record(after.as_secs_f64());
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::new()
    }
}
