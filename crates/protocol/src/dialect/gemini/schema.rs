//! Google's dialect of schemas, an OpenAPI subset, as JSON schema.
//!
//! Only this direction is needed: what is sent to Google goes into the fields that take JSON schema as it is.

use crate::json::tree::{Member, Node, Value};
use crate::json::write;

/// The same schema as JSON schema: types in lower case, `nullable` among the types, camel case keywords as they are.
pub(super) fn json_schema(schema: &Node<'_>) -> String {
    let mut out = Vec::with_capacity(schema.raw.len());
    write_schema(schema, &mut out);
    String::from_utf8(out).expect("JSON of texts is a text")
}

fn write_schema(schema: &Node<'_>, out: &mut Vec<u8>) {
    let Value::Object(members) = &schema.value else {
        out.extend_from_slice(schema.raw.as_bytes());
        return;
    };
    let nullable = schema.get("nullable").is_some_and(|node| matches!(node.value, Value::Bool(true)));
    out.push(b'{');
    let mut first = true;
    for Member { name, node } in members {
        // It becomes a type.
        if name == "nullable" || (name == "propertyOrdering") {
            continue;
        }
        if !std::mem::replace(&mut first, false) {
            out.push(b',');
        }
        write::text(out, name);
        out.push(b':');
        match (name.as_ref(), &node.value) {
            ("type", Value::Text(kind)) => {
                let kind = kind.to_ascii_lowercase();
                if nullable {
                    out.push(b'[')
                }
                write::text(out, &kind);
                if nullable {
                    out.extend_from_slice(b",\"null\"]")
                }
            }
            ("properties", Value::Object(properties)) => {
                out.push(b'{');
                for (index, property) in properties.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write::text(out, &property.name);
                    out.push(b':');
                    write_schema(&property.node, out);
                }
                out.push(b'}');
            }
            ("items", _) => write_schema(node, out),
            ("anyOf", Value::Array(variants)) => {
                out.push(b'[');
                for (index, variant) in variants.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    write_schema(variant, out);
                }
                out.push(b']');
            }
            // 64-bit integers are texts in Google's JSON.
            (
                "maxItems" | "minItems" | "minProperties" | "maxProperties" | "minLength" | "maxLength",
                Value::Text(count),
            ) if !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit()) => {
                out.extend_from_slice(count.as_bytes());
            }
            _ => out.extend_from_slice(node.raw.as_bytes()),
        }
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_become_json_schema() {
        let check = |from: &str, to: &str| assert_eq!(json_schema(&Node::read(from).unwrap()), to);
        check(
            r#"{"type":"OBJECT","properties":{"type":{"type":"STRING","nullable":true}},"required":["type"]}"#,
            r#"{"type":"object","properties":{"type":{"type":["string","null"]}},"required":["type"]}"#,
        );
        check(
            r#"{"type":"ARRAY","items":{"anyOf":[{"type":"INTEGER"},{"type":"NUMBER"}]},"maxItems":"5"}"#,
            r#"{"type":"array","items":{"anyOf":[{"type":"integer"},{"type":"number"}]},"maxItems":5}"#,
        );
        check(r#"{"type":"object","enum":["TYPE"]}"#, r#"{"type":"object","enum":["TYPE"]}"#);
    }
}
