//! Amounts as plain integers, for the journal's own columns: shorter than decimal text, and nobody but us reads them.

use crate::money::Nanos;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(super) fn serialize<S: Serializer>(amount: &Nanos, serializer: S) -> Result<S::Ok, S::Error> {
    amount.0.serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Nanos, D::Error> {
    i64::deserialize(deserializer).map(Nanos)
}
