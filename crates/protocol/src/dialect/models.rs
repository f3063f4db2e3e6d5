//! Lists of models, as each dialect has them.
//!
//! Anthropic's "List Models" and Gemini's "models.list" of their references; OpenAI's form is [`ModelEntry`]'s own. All of
//! a key's models fit into one page.

use super::Dialect;
use crate::json::write::Object;
use crate::openai::ModelEntry;
use bytes::Bytes;

/// The body that lists models, in their order.
pub fn write_models(dialect: Dialect, models: &[ModelEntry<'_>]) -> Bytes {
    let mut body = Vec::new();
    match dialect {
        Dialect::Messages => {
            let mut object = Object::open(&mut body);
            let mut data = object.array("data");
            models.iter().for_each(|model| message_model(model, &mut data.object()));
            drop(data);
            object.text_or_null("first_id", models.first().map(|model| model.id));
            object.flag("has_more", false);
            object.text_or_null("last_id", models.last().map(|model| model.id));
        }
        Dialect::Gemini => {
            let mut object = Object::open(&mut body);
            let mut list = object.array("models");
            models.iter().for_each(|model| gemini_model(model, &mut list.object()));
        }
        _ => return ModelEntry::list(models),
    }
    body.into()
}

/// The body that describes a model.
pub fn write_model(dialect: Dialect, model: &ModelEntry<'_>) -> Bytes {
    let mut body = Vec::new();
    match dialect {
        Dialect::Messages => message_model(model, &mut Object::open(&mut body)),
        Dialect::Gemini => gemini_model(model, &mut Object::open(&mut body)),
        _ => return model.json(),
    }
    body.into()
}

fn message_model(model: &ModelEntry<'_>, object: &mut Object<'_>) {
    object.text("type", "model");
    object.text("id", model.id);
    object.text("display_name", model.id);
    let created = jiff::Timestamp::from_second(model.created).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    object.text("created_at", &created.to_string());
}

fn gemini_model(model: &ModelEntry<'_>, object: &mut Object<'_>) {
    object.text("name", &format!("models/{}", model.id));
    object.text("displayName", model.id);
    object.texts("supportedGenerationMethods", &["generateContent", "streamGenerateContent", "countTokens"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_listed_as_each_dialect_has_them() {
        let model = ModelEntry { id: "m", created: 7, owned_by: "tollgate" };
        let message = r#"{"type":"model","id":"m","display_name":"m","created_at":"1970-01-01T00:00:07Z"}"#;
        assert_eq!(write_model(Dialect::Messages, &model), message);
        let list = format!(r#"{{"data":[{message}],"first_id":"m","has_more":false,"last_id":"m"}}"#);
        assert_eq!(write_models(Dialect::Messages, &[model]), list);
        let none = r#"{"data":[],"first_id":null,"has_more":false,"last_id":null}"#;
        assert_eq!(write_models(Dialect::Messages, &[]), none);
        let gemini = r#"{"name":"models/m","displayName":"m","supportedGenerationMethods":["generateContent","streamGenerateContent","countTokens"]}"#;
        assert_eq!(write_models(Dialect::Gemini, &[model]), format!(r#"{{"models":[{gemini}]}}"#));
        assert_eq!(write_models(Dialect::Chat, &[model]), ModelEntry::list(&[model]));
    }
}
