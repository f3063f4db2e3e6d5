//! Answers that a provider keeps: noted before their caller can go on from them, found when one does.
//!
//! Each note must be durable before the answer's last byte, but not each by a transaction of its own: those that come while
//! one is being written are written together.

use crate::exchange::Exchange;
use crate::failure::{Case, Failure};
use crate::lifecycle::Gateway;
use domain::Usage;
use parking_lot::Mutex;
use std::sync::Arc;
use store::database::Database;
use store::keys::Caller;
use store::responses::{self, KeptResponse, Owner};
use tokio::sync::oneshot;

/// Notes on their way into the database.
#[derive(Default)]
pub(crate) struct Notes(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    notes: Vec<Note>,
    /// Somebody writes, and looks again when that is done.
    is_writing: bool,
}

struct Note {
    owner: Owner,
    id: String,
    kept: KeptResponse,
    /// Hears when it is durable, or cannot be: then nobody can go on from the answer, which is all that is lost.
    written: oneshot::Sender<()>,
}

/// Whose the answers to that caller are.
pub(crate) fn owner_of(caller: &Caller) -> Owner {
    Owner { account: caller.account.id, project: caller.key.project }
}

impl Gateway {
    /// Notes an answer that the provider keeps.
    pub(crate) async fn keep(self: &Arc<Self>, exchange: &Exchange, id: String, usage: &Usage) {
        let (Some(owner), Some(database)) = (exchange.kept_for, self.ledger.database()) else { return };
        let kept = KeptResponse { upstream: exchange.upstream.name.clone(), tokens: usage.total_tokens() };
        let (written, durable) = oneshot::channel();
        let is_writing = {
            let mut waiting = self.notes.0.lock();
            waiting.notes.push(Note { owner, id, kept, written });
            std::mem::replace(&mut waiting.is_writing, true)
        };
        if !is_writing {
            // Apart from this request, which may be given up: others wait for the same.
            tokio::spawn(write_notes(self.clone(), database.clone()));
        }
        _ = durable.await;
    }

    /// The answer of that id, if this caller may go on from it.
    pub(crate) async fn kept_response(&self, caller: &Caller, id: &str) -> Result<KeptResponse, Failure> {
        let (owner, now, own_id) = (owner_of(caller), self.clock.now(), id.to_owned());
        let found = match self.ledger.database() {
            Some(database) => database.read(move |connection| responses::find(connection, owner, &own_id, now)).await,
            None => Ok(None),
        };
        found.map_err(|error| crate::admit::store_unavailable(error.to_string()))?.ok_or_else(|| {
            let id: String = id.chars().filter(|letter| !letter.is_control()).take(64).collect();
            let message =
                format!("previous_response_id: no response {id:?} of yours is known here. Send the whole input.");
            Failure::new(Case::BadRequest, message).param(Some("previous_response_id"))
        })
    }
}

/// Writes what waits until nothing does.
async fn write_notes(gateway: Arc<Gateway>, database: Database) {
    loop {
        let notes = {
            let mut waiting = gateway.notes.0.lock();
            if waiting.notes.is_empty() {
                waiting.is_writing = false;
                return;
            }
            std::mem::take(&mut waiting.notes)
        };
        let now = gateway.clock.now();
        let write = database.write(move |transaction| {
            for Note { owner, id, kept, .. } in &notes {
                responses::remember(transaction, *owner, id, kept, now)?;
            }
            Ok(notes)
        });
        match write.await {
            Ok(notes) => notes.into_iter().for_each(|note| _ = note.written.send(())),
            Err(error) => tracing::warn!(%error, "answers were not noted, so nobody can go on from them"),
        }
    }
}
