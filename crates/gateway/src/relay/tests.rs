//! A silent stream, told to callers of each dialect.

use super::*;
use crate::clock::Clock;
use crate::counters::Counters;
use crate::exchange::tests::exchange;
use crate::lifecycle::Settings;
use crate::limiter::Limiter;
use crate::simulator::{Behaviour, Simulator};
use crate::tokens::Tokenizers;
use crate::translation::Translation;
use crate::upstream::Local;
use domain::ledger::{Hold, Limits};
use domain::{AccountId, KeyId, Multiplier, PriceId, Timestamp};
use protocol::canonical::Dialect;
use protocol::dialect::gemini::Framing;
use protocol::openai::Endpoint;
use serde_json::Value;
use store::ledger::Ledger;

const NOW: Timestamp = Timestamp(1_000);

/// A stream of two words, each after forty seconds, to a caller of that dialect.
async fn slow(dialect: Dialect, framing: Framing) -> Relay {
    let (ledger, clock) = (Arc::new(Ledger::in_memory(10)), Arc::new(Clock::standing_at(NOW)));
    // Nobody writes this journal, so nothing becomes durable.
    let fund = ledger.top_up(AccountId(1), Nanos(1_000_000), "", NOW);
    assert!(tokio::time::timeout(Duration::from_millis(1), fund).await.is_err());
    let terms = Hold {
        key: KeyId(1),
        request: "r".into(),
        model: "m".into(),
        upstream: "u".into(),
        price: PriceId(1),
        multiplier: Multiplier::ONE,
        amount: Nanos(1_000),
        bound: Usage::tokens(50, 10),
        lease_until: NOW,
        parts: Default::default(),
        counted: Arc::default(),
    };
    let hold = ledger.hold(AccountId(1), &terms, &Limits::default(), NOW).await.unwrap();
    let counters = Arc::new(Counters::new());
    let mut exchange = exchange(0);
    exchange.translation = Some(Arc::new(Translation::sample(dialect, framing)));
    let (priced, endpoint) = (exchange.priced.clone(), Endpoint::Chat);
    let held = Held::new(ledger.clone(), clock.clone(), counters.clone(), endpoint.into(), priced, None, hold);
    let limiter = Limiter::new(&[0; 32]);
    let gateway = Gateway::new(ledger, clock, counters, Tokenizers::exact(), limiter, Settings::default());
    let behaviour = Behaviour { latency_ms: 0, chunk_gap_ms: 40_000, completion_tokens: 2, ..Behaviour::default() };
    let body = r#"{"model":"m","messages":[{"content":"hi"}],"stream":true,"stream_options":{"include_usage":true}}"#;
    let reply = Simulator::new(behaviour).unwrap().send(endpoint, body.into()).await.unwrap();
    let tongue = Tongue::new(exchange.translation.clone(), None);
    Relay::new(gateway, Box::new(exchange), held, tongue, reply.body)
}

async fn pieces(mut relay: Relay) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    while let Some(piece) = std::future::poll_fn(|context| relay.poll_bytes(context)).await {
        pieces.push(piece);
    }
    pieces
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_of_gemini_s_is_kept_alive_in_both_framings() {
    for framing in [Framing::Events, Framing::Array] {
        let pieces = pieces(slow(Dialect::Gemini, framing).await).await;
        let alive = pieces.iter().filter(|piece| is_keep_alive(piece)).count();
        // Two in each of the forty seconds before every event but the first.
        assert!(alive >= 4, "{framing:?}: {pieces:?}");
        assert!(!is_keep_alive(pieces.last().unwrap()), "{framing:?}");
        let whole = String::from_utf8(pieces.concat()).unwrap();
        let answers: Vec<Value> = match framing {
            Framing::Array => serde_json::from_str(&whole).unwrap_or_else(|error| panic!("{error}: {whole}")),
            // As Google's libraries read: every line that is not blank is data.
            Framing::Events => {
                let lines = whole.lines().filter(|line| !line.trim().is_empty());
                lines.map(|line| serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap()).collect()
            }
        };
        let text: String = answers
            .iter()
            .filter_map(|answer| answer["candidates"][0]["content"]["parts"][0]["text"].as_str())
            .collect();
        assert_eq!(text, "Every request", "{framing:?}: {whole}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_of_anthropic_s_is_kept_alive_by_its_own_event() {
    let pieces = pieces(slow(Dialect::Messages, Framing::Events).await).await;
    let pings = pieces.iter().filter(|piece| piece.starts_with(b"event: ping\n")).count();
    assert!(pings >= 4 && pieces.iter().all(|piece| !piece.starts_with(b": keep-alive")), "{pieces:?}");
}
