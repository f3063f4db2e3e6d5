//! The list of models, as `GET /v1/models` gives it.

use bytes::Bytes;
use serde::{Serialize, Serializer};

/// A model as callers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelEntry<'a> {
    /// The name under which it is asked for.
    pub id: &'a str,
    /// When it was made available, in seconds since 1970.
    pub created: i64,
    /// Who offers it.
    pub owned_by: &'a str,
}

impl ModelEntry<'_> {
    /// The body that describes this model.
    pub fn json(&self) -> Bytes {
        written(self)
    }

    /// The body that lists models, in their order.
    pub fn list(models: &[Self]) -> Bytes {
        #[derive(Serialize)]
        struct List<'m, 'a> {
            object: &'static str,
            data: &'m [ModelEntry<'a>],
        }

        written(&List { object: "list", data: models })
    }
}

impl Serialize for ModelEntry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Model<'a> {
            id: &'a str,
            object: &'static str,
            created: i64,
            owned_by: &'a str,
        }

        Model { id: self.id, object: "model", created: self.created, owned_by: self.owned_by }.serialize(serializer)
    }
}

fn written(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("strings and numbers can be written as JSON").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_have_openai_s_shape() {
        let one = ModelEntry { id: "gpt-\"4\"", created: 7, owned_by: "openai" };
        let json = r#"{"id":"gpt-\"4\"","object":"model","created":7,"owned_by":"openai"}"#;
        assert_eq!(one.json(), json);
        assert_eq!(ModelEntry::list(&[one, one]), format!(r#"{{"object":"list","data":[{json},{json}]}}"#));
        assert_eq!(ModelEntry::list(&[]), r#"{"object":"list","data":[]}"#);
    }
}
