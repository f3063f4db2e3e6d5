//! The endpoints that cost money.

use protocol::openai::{Endpoint, media};

/// Of text, or beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paid {
    /// Of text: its answers are counted in tokens as they come.
    Text(Endpoint),
    /// Of images, sound and the like.
    Media(media::Endpoint),
}

impl Paid {
    /// How many there are.
    pub const COUNT: usize = Endpoint::ALL.len() + media::Endpoint::ALL.len();

    /// Every one, in the order of [`Paid::index`].
    pub fn all() -> impl Iterator<Item = Self> {
        Endpoint::ALL.map(Self::Text).into_iter().chain(media::Endpoint::ALL.map(Self::Media))
    }

    /// Its place among all.
    pub fn index(self) -> usize {
        match self {
            Self::Text(endpoint) => endpoint as usize,
            Self::Media(endpoint) => Endpoint::ALL.len() + endpoint as usize,
        }
    }

    /// The path on our side and, after the base address, on the provider's.
    pub fn path(self) -> &'static str {
        match self {
            Self::Text(endpoint) => endpoint.path(),
            Self::Media(endpoint) => endpoint.path(),
        }
    }

    /// The name in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text(endpoint) => endpoint.name(),
            Self::Media(endpoint) => endpoint.name(),
        }
    }
}

impl From<Endpoint> for Paid {
    fn from(endpoint: Endpoint) -> Self {
        Self::Text(endpoint)
    }
}

impl From<media::Endpoint> for Paid {
    fn from(endpoint: media::Endpoint) -> Self {
        Self::Media(endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_endpoint_has_its_place_and_a_name_of_its_own() {
        assert!(Paid::all().enumerate().all(|(index, paid)| paid.index() == index));
        assert_eq!(Paid::all().map(Paid::name).collect::<HashSet<_>>().len(), Paid::COUNT);
        assert_eq!(Paid::all().map(Paid::path).collect::<HashSet<_>>().len(), Paid::COUNT);
    }
}
