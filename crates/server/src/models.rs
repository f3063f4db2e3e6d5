//! The models that a key can ask for.

use crate::app::App;
use crate::relay::{Asker, identified};
use crate::router::{Peer, json};
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use gateway::authenticate::allows_model;
use gateway::catalog::Route;
use gateway::{Case, Failure};
use http::{HeaderMap, StatusCode, Uri};
use protocol::dialect::Dialect;
use protocol::dialect::models::{write_model, write_models};
use protocol::openai::ModelEntry;
use std::net::IpAddr;
use std::sync::Arc;

/// `GET /v1/models`, in the shape that whoever asks expects.
pub async fn list(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    listed(&app, dialect_of(&headers), peer, &uri, &headers).await
}

/// `GET /v1/models/{id}`, in the shape that whoever asks expects.
pub async fn show(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    shown(&app, dialect_of(&headers), &id, peer, &uri, &headers).await
}

/// `GET /v1beta/models`, Gemini's.
pub async fn list_of_gemini(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    listed(&app, Dialect::Gemini, peer, &uri, &headers).await
}

/// `GET /v1beta/models/{id}`, Gemini's.
pub async fn show_of_gemini(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    shown(&app, Dialect::Gemini, &id, peer, &uri, &headers).await
}

/// Anthropic's clients name the version of its interface with every request, and Google's have a header of their own for
/// the key.
pub fn dialect_of(headers: &HeaderMap) -> Dialect {
    if headers.contains_key("anthropic-version") {
        Dialect::Messages
    } else if headers.contains_key("x-goog-api-key") {
        Dialect::Gemini
    } else {
        Dialect::Chat
    }
}

async fn listed(app: &App, dialect: Dialect, peer: IpAddr, uri: &Uri, headers: &HeaderMap) -> Response {
    let mut asker = Asker::speaking(app, dialect, peer);
    let caller = match identified(app, headers, uri, &mut asker).await {
        Ok(caller) => caller,
        Err(failure) => return asker.failed(app, failure, headers),
    };
    let catalog = app.gateway.catalog();
    let served = catalog.served();
    let entries: Vec<_> =
        served.into_iter().filter(|route| allows_model(&caller.key, &route.model)).map(|r| entry(app, r)).collect();
    asker.told(app, None, json(StatusCode::OK, write_models(dialect, &entries)))
}

async fn shown(app: &App, dialect: Dialect, id: &str, peer: IpAddr, uri: &Uri, headers: &HeaderMap) -> Response {
    let mut asker = Asker::speaking(app, dialect, peer);
    let caller = match identified(app, headers, uri, &mut asker).await {
        Ok(caller) => caller,
        Err(failure) => return asker.failed(app, failure, headers),
    };
    let catalog = app.gateway.catalog();
    match catalog.route(id).filter(|route| route.priced.is_some() && allows_model(&caller.key, &route.model)) {
        Some(route) => {
            asker.told(app, Some(&route.model), json(StatusCode::OK, write_model(dialect, &entry(app, route))))
        }
        None => {
            let message = "This model does not exist here. GET /v1/models lists those that do.";
            let failure = Failure::new(Case::ModelNotFound, message).param(Some("model"));
            asker.failed(app, failure, headers)
        }
    }
}

fn entry<'a>(app: &App, route: &'a Route) -> ModelEntry<'a> {
    ModelEntry { id: &route.model, created: app.started.seconds(), owned_by: "tollgate" }
}
