//! The models that a key can ask for.

use crate::app::App;
use crate::error::profile_of;
use crate::router::{Peer, failed, json};
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use gateway::authenticate::{allows_model, permit};
use gateway::catalog::Route;
use gateway::{Case, Failure};
use http::{HeaderMap, StatusCode, Uri};
use protocol::openai::ModelEntry;
use std::net::IpAddr;
use std::sync::Arc;
use store::keys::Caller;

/// `GET /v1/models`
pub async fn list(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let caller = match permitted(&app, &headers, &uri, peer).await {
        Ok(caller) => caller,
        Err(failed) => return failed,
    };
    let catalog = app.gateway.catalog();
    let served = catalog.served();
    let entries: Vec<_> =
        served.into_iter().filter(|route| allows_model(&caller.key, &route.model)).map(|r| entry(&app, r)).collect();
    json(StatusCode::OK, ModelEntry::list(&entries))
}

/// `GET /v1/models/{id}`
pub async fn show(
    State(app): State<Arc<App>>,
    Extension(Peer(peer)): Extension<Peer>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let caller = match permitted(&app, &headers, &uri, peer).await {
        Ok(caller) => caller,
        Err(failed) => return failed,
    };
    let catalog = app.gateway.catalog();
    match catalog.route(&id).filter(|route| route.priced.is_some() && allows_model(&caller.key, &route.model)) {
        Some(route) => json(StatusCode::OK, entry(&app, route).json()),
        None => {
            let message = "This model does not exist here. GET /v1/models lists those that do.";
            let failure = Failure::new(Case::ModelNotFound, message).param(Some("model"));
            failed(profile_of(&caller, app.config.server.error_profile), &headers, &failure)
        }
    }
}

async fn permitted(app: &App, headers: &HeaderMap, uri: &Uri, peer: IpAddr) -> Result<Arc<Caller>, Response> {
    let now = app.now();
    let default = app.config.server.error_profile;
    let identified = app.authenticator.identify(headers, uri, now).await;
    let caller = identified.map_err(|failure| failed(default, headers, &failure))?;
    permit(&caller, peer, now).map_err(|failure| failed(profile_of(&caller, default), headers, &failure))?;
    Ok(caller)
}

fn entry<'a>(app: &App, route: &'a Route) -> ModelEntry<'a> {
    ModelEntry { id: &route.model, created: app.started.seconds(), owned_by: "tollgate" }
}
