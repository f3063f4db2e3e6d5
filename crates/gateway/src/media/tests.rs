//! What is believed of a report, and by which price images go.

use super::*;
use crate::catalog::{Catalog, RouteDeclared};
use crate::upstream::{Declared, http_client};
use domain::price::PriceSheet;
use domain::{PriceId, Timestamp};
use protocol::openai::media::Outcome;
use store::prices::{PriceBook, PriceSource, PriceVersion};

const TOKENS: &str = r#"{"input_per_million":"1","output_image_per_million":"40"}"#;

fn price(sheet: &str) -> Price {
    serde_json::from_str::<PriceSheet>(sheet).unwrap().compile().unwrap()
}

fn upstream() -> Arc<Upstream> {
    _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let base_url = Some("http://127.0.0.1:9/v1");
    let declared = Declared { name: "u", provider: "openai-compatible", base_url, ..Declared::default() };
    Arc::new(Upstream::http(http_client(), &declared).unwrap())
}

fn request(body: &str) -> Request<'_> {
    Request::read(Endpoint::Images, None, body.as_bytes()).unwrap()
}

#[tokio::test]
async fn u_25_what_the_request_cannot_have_taken_is_not_believed() {
    let (request, by_tokens) = priced_by(request(r#"{"model":"m","prompt":"abc","quality":"low"}"#), &price(TOKENS));
    let exchange = Exchange {
        endpoint: Endpoint::Images,
        format: Format::Json,
        bound: Usage::tokens(request.demand.input_tokens_bound, request.demand.answer_tokens.unwrap()),
        work: request.work,
        by_tokens,
        model: "m".into(),
        upstream: upstream(),
        limits: Arc::default(),
        deadline: Instant::now(),
    };
    let charged = |input: u64, output: u64| {
        let total = input + output;
        let body = format!(
            r#"{{"data":[{{}}],"usage":{{"input_tokens":{input},"output_tokens":{output},"total_tokens":{total}}}}}"#
        );
        let Ok(Outcome::Complete(facts)) = Facts::read(Endpoint::Images, Format::Json, body.as_bytes()) else {
            panic!("{body}")
        };
        let (usage, estimated) = exchange.consumed(&facts);
        (usage[Meter::Input], usage[Meter::OutputImage], estimated)
    };
    let own = (1, 272, true);
    assert_eq!(charged(40, 4_160), (40, 4_160, false));
    assert_eq!(
        charged(131 + PROMPT_ADDED_MAX, 16_384 + OUTPUT_ADDED_MAX),
        (131 + PROMPT_ADDED_MAX, 16_384 + OUTPUT_ADDED_MAX, false)
    );
    assert_eq!(charged(132 + PROMPT_ADDED_MAX, 1), own);
    assert_eq!(charged(1, 16_385 + OUTPUT_ADDED_MAX), own);
    assert_eq!(charged(0, 0), own, "U-23");
}

#[tokio::test]
async fn images_go_by_the_price_of_their_look_unless_tokens_are_counted() {
    let upstream = upstream();
    let version = |id: i64, model: &str, sheet: &str| PriceVersion {
        id: PriceId(id),
        provider: None,
        model: model.to_owned(),
        source: PriceSource::Config,
        mode: None,
        sheet: serde_json::from_str(sheet).unwrap(),
        retired: false,
        created_at: Timestamp(0),
    };
    let versions = vec![
        version(1, "piece", r#"{"per_image":"0.04"}"#),
        version(2, "hd/1024-x-1792/piece", r#"{"per_image":"0.12"}"#),
        version(3, "1792-x-1024/piece", r#"{"per_image":"0.08"}"#),
        version(4, "token", TOKENS),
        version(5, "high/1024-x-1024/token", r#"{"per_image":"0.2"}"#),
    ];
    let book = PriceBook::from_versions(versions).unwrap();
    let declared = ["piece", "token"].map(|model| RouteDeclared {
        model: model.to_owned(),
        alias_of: None,
        upstream_model: None,
        upstreams: vec!["u".to_owned()],
        wait_seconds: None,
    });
    let catalog = Catalog::build(&[upstream], &declared, &book).unwrap();
    for (model, look, expected) in [
        ("piece", "", 1),
        ("piece", r#","size":"1024x1792","quality":"hd""#, 2),
        ("piece", r#","size":"1024x1792""#, 1),
        ("piece", r#","size":"1792x1024""#, 3),
        ("piece", r#","size":"1792x1024","quality":"standard""#, 3),
        ("piece", r#","size":"1792x1024","quality":"hd""#, 1),
        ("token", r#","quality":"high""#, 4),
    ] {
        let body = format!(r#"{{"model":"{model}","prompt":"a"{look}}}"#);
        let route = catalog.route(model).unwrap();
        let priced = by_look(route, route.priced.as_ref().unwrap(), &request(&body));
        assert_eq!(priced.id, PriceId(expected), "{body}");
    }
}
