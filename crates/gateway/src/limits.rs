//! What limits a request beside the money that is there: the key's quota, and the budgets that the request falls under.

use crate::failure::{Case, Failure};
use domain::Timestamp;
use domain::budget::Asking;
use domain::ledger::Limits;
use protocol::openai::{Request, add_tags};
use store::keys::Caller;

/// Adds the tags of the header `x-tollgate-tags` to those that the request has in its body.
pub fn tag(request: &mut Request<'_>, tags: &str) -> Result<(), Failure> {
    add_tags(&mut request.tags, tags)
        .map_err(|bad| Failure::new(Case::BadRequest, format!("The header x-tollgate-tags: {}.", bad.message)))
}

/// The limits of a request that is decided on at `at`. They name the periods of that moment, and go with the request
/// to its end.
pub fn limits(caller: &Caller, request: &Request<'_>, at: Timestamp) -> Limits {
    let Caller { key, budgets, zone, .. } = caller;
    if budgets.is_empty() {
        return Limits::quota(key.quota);
    }
    let tags: Vec<&str> = request.tags.iter().map(String::as_str).collect();
    let asking = Asking {
        project: key.project,
        key: key.id,
        end_user: request.end_user.as_deref(),
        model: &request.model,
        tags: &tags,
    };
    let budgets = budgets.iter().filter_map(|budget| budget.limit_for(&asking, zone, at)).collect();
    Limits { quota: key.quota, budgets }
}
