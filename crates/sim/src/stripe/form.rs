//! Form-encoded parameters with brackets: `line_items[0][price_data][unit_amount]=1000`.

use super::world::ApiError;
use serde_json::{Map, Value};

/// Deepest nesting that is read.
const DEPTH_MAX: usize = 8;

/// Parameters as a tree whose leaves are texts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Params(Map<String, Value>);

impl Params {
    /// Reads a body or a query string.
    pub(super) fn parse(encoded: &[u8]) -> Result<Self, Box<ApiError>> {
        let mut tree = Map::new();
        for (name, value) in form_urlencoded::parse(encoded) {
            let path = path(&name).ok_or_else(|| ApiError::invalid("A parameter's brackets do not match", &name))?;
            insert(&mut tree, &path, value.into_owned());
        }
        Ok(Self(tree.into_iter().map(|(name, value)| (name, with_lists(value))).collect()))
    }

    /// Refuses what the endpoint does not know.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Box<ApiError>> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => Err(ApiError::invalid("Unknown parameter", name).code("parameter_unknown")),
        }
    }

    /// The value at a path such as `payment_intent_data.metadata`.
    pub(super) fn at(&self, path: &str) -> Option<&Value> {
        let mut parts = path.split('.');
        let mut value = self.0.get(parts.next()?)?;
        for part in parts {
            value = match value {
                Value::Array(items) => items.get(part.parse::<usize>().ok()?)?,
                other => other.get(part)?,
            };
        }
        Some(value)
    }

    /// A text; an empty one counts as absent, as Stripe has it.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.at(path).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// A text that must be there.
    pub(super) fn required(&self, path: &str) -> Result<&str, Box<ApiError>> {
        self.text(path).ok_or_else(|| ApiError::invalid("Missing required parameter", path).code("parameter_missing"))
    }

    /// A whole number.
    pub(super) fn integer(&self, path: &str) -> Result<Option<i64>, Box<ApiError>> {
        let Some(text) = self.text(path) else { return Ok(None) };
        let invalid = |_| ApiError::invalid("Not a whole number", path).code("parameter_invalid_integer");
        text.parse().map(Some).map_err(invalid)
    }

    /// `true` or `false`; absent is false.
    pub(super) fn boolean(&self, path: &str) -> Result<bool, Box<ApiError>> {
        match self.text(path) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(ApiError::invalid("Neither true nor false", path)),
        }
    }

    /// A set of texts such as metadata.
    pub(super) fn texts(&self, path: &str) -> Value {
        self.at(path).filter(|value| value.is_object()).cloned().unwrap_or_else(|| Value::Object(Map::new()))
    }

    /// The tree.
    pub(super) fn value(&self) -> Value {
        Value::Object(self.0.clone())
    }
}

/// `a[b][c]` as its parts.
fn path(name: &str) -> Option<Vec<&str>> {
    let (first, mut rest) = name.split_at(name.find('[').unwrap_or(name.len()));
    let mut parts = vec![first];
    while !rest.is_empty() {
        let (part, after) = rest.strip_prefix('[')?.split_once(']')?;
        parts.push(part);
        rest = after;
    }
    (!first.is_empty() && parts.len() <= DEPTH_MAX).then_some(parts)
}

fn insert(tree: &mut Map<String, Value>, path: &[&str], value: String) {
    let (first, rest) = path.split_first().expect("a path has a part");
    // `a[]=x&a[]=y` counts up.
    let name = if first.is_empty() { tree.len().to_string() } else { (*first).to_owned() };
    if rest.is_empty() {
        tree.insert(name, Value::String(value));
        return;
    }
    let inner = tree.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if !inner.is_object() {
        *inner = Value::Object(Map::new());
    }
    insert(inner.as_object_mut().expect("it was just made one"), rest, value);
}

/// Objects whose names count from 0 are lists.
fn with_lists(value: Value) -> Value {
    let Value::Object(map) = value else { return value };
    let map: Map<String, Value> = map.into_iter().map(|(name, value)| (name, with_lists(value))).collect();
    let counts = !map.is_empty() && (0..map.len()).all(|index| map.contains_key(&index.to_string()));
    if !counts {
        return Value::Object(map);
    }
    Value::Array((0..map.len()).map(|index| map[&index.to_string()].clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn brackets_become_a_tree() {
        let encoded = b"mode=payment&line_items[0][price_data][currency]=usd&line_items%5B0%5D%5Bquantity%5D=1\
            &payment_method_types[]=card&payment_method_types[]=link&metadata[a%20b]=c+d%26";
        let expected = json!({
            "mode": "payment",
            "line_items": [{"price_data": {"currency": "usd"}, "quantity": "1"}],
            "payment_method_types": ["card", "link"],
            "metadata": {"a b": "c d&"},
        });
        let params = Params::parse(encoded).unwrap();
        assert_eq!(params.value(), expected);
        assert_eq!(params.text("line_items.0.price_data.currency"), Some("usd"));
        assert_eq!(params.integer("line_items.0.quantity").unwrap(), Some(1));
        for broken in ["a[b", "a[b]c", "[a]=1", "a[1][2][3][4][5][6][7][8]=9"] {
            assert!(Params::parse(broken.as_bytes()).is_err(), "{broken}");
        }
    }
}
