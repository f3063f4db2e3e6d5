//! stub
use std::sync::Arc;
/// x
pub fn router(_app: Arc<crate::app::App>) -> axum::Router {
    axum::Router::new()
}
/// x
pub fn local_router(_app: Arc<crate::app::App>) -> axum::Router {
    axum::Router::new()
}
