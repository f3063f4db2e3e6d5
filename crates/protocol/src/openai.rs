//! The OpenAI family: chat completions, completions and embeddings, as OpenAI and its many imitators speak them.
//!
//! A [`Request`] is read once, for billing and for forwarding, so that what is priced is what is sent. An
//! [`Answer`] or a [`StreamObserver`] reads from the answer what the ledger needs and leaves its bytes alone.

mod answer;
mod error;
pub mod media;
mod models;
mod produced;
mod prompt;
mod request;
mod stream;
mod usage;

pub use answer::{Answer, Completion, Unreadable, answer_id, produced_text};
pub use error::ErrorBody;
pub use models::ModelEntry;
pub use produced::ChoiceStates;
pub use prompt::{model_named, prompt_text};
pub(crate) use request::same_without_case;
pub use request::{BadRequest, CapField, Demand, Edits, Media, Request, add_tags};
pub use stream::{Seen, StreamObserver};
pub use usage::Reported;

/// An endpoint that takes a model and answers with usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A conversation in, a message out.
    Chat,
    /// A text in, its continuation out. Deprecated by OpenAI, still served by many.
    Completions,
    /// Texts in, vectors out.
    Embeddings,
}

impl Endpoint {
    /// Every endpoint.
    pub const ALL: [Self; 3] = [Self::Chat, Self::Completions, Self::Embeddings];

    /// The path on our side and, after the base address, on the provider's.
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
        }
    }

    /// The name in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
        }
    }

    /// The endpoint with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_has_a_name_of_its_own() {
        for endpoint in Endpoint::ALL {
            assert_eq!(Endpoint::from_name(endpoint.name()), Some(endpoint));
            assert!(endpoint.path().starts_with("/v1/"));
        }
    }
}
