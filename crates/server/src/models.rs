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
use protocol::openai::ModelEntry;
use std::sync::Arc;

/// `GET /v1/models`
pub async fn list(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let mut asker = Asker::unknown(&app, peer);
    let caller = match identified(&app, &headers, &uri, &mut asker).await {
        Ok(caller) => caller,
        Err(failure) => return asker.failed(&app, failure, &headers),
    };
    let catalog = app.gateway.catalog();
    let served = catalog.served();
    let entries: Vec<_> =
        served.into_iter().filter(|route| allows_model(&caller.key, &route.model)).map(|r| entry(&app, r)).collect();
    asker.told(&app, None, json(StatusCode::OK, ModelEntry::list(&entries)))
}

/// `GET /v1/models/{id}`
pub async fn show(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let mut asker = Asker::unknown(&app, peer);
    let caller = match identified(&app, &headers, &uri, &mut asker).await {
        Ok(caller) => caller,
        Err(failure) => return asker.failed(&app, failure, &headers),
    };
    let catalog = app.gateway.catalog();
    match catalog.route(&id).filter(|route| route.priced.is_some() && allows_model(&caller.key, &route.model)) {
        Some(route) => asker.told(&app, Some(&route.model), json(StatusCode::OK, entry(&app, route).json())),
        None => {
            let message = "This model does not exist here. GET /v1/models lists those that do.";
            let failure = Failure::new(Case::ModelNotFound, message).param(Some("model"));
            asker.failed(&app, failure, &headers)
        }
    }
}

fn entry<'a>(app: &App, route: &'a Route) -> ModelEntry<'a> {
    ModelEntry { id: &route.model, created: app.started.seconds(), owned_by: "tollgate" }
}
