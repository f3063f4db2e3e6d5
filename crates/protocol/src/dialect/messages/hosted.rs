//! Messages as clouds that host Anthropic's models take them: the model is in the path, the version in the body.

use crate::json::tree::Node;
use crate::json::write::Object;

/// Who hosts the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// AWS Bedrock's InvokeModel, which tells a stream by its path.
    Bedrock,
    /// Google's Vertex AI.
    Vertex,
}

/// The body that a host takes, from one for Anthropic itself, with the names that stand in its header `anthropic-beta`. `None`
/// where that is no JSON object.
pub fn hosted(body: &[u8], host: Host, beta: Option<&str>) -> Option<Vec<u8>> {
    let node = Node::read(std::str::from_utf8(body).ok()?).ok().filter(Node::is_object)?;
    let (version, elsewhere): (_, &[&str]) = match host {
        Host::Bedrock => ("bedrock-2023-05-31", &["model", "stream", "anthropic_version"]),
        Host::Vertex => ("vertex-2023-10-16", &["model", "anthropic_version"]),
    };
    let mut hosted = Vec::with_capacity(body.len() + 64);
    {
        let mut object = Object::open(&mut hosted);
        object.text("anthropic_version", version);
        if let (Some(beta), Host::Bedrock, None) = (beta, host, node.get("anthropic_beta")) {
            let mut names = object.array("anthropic_beta");
            beta.split(',').map(str::trim).filter(|name| !name.is_empty()).for_each(|name| names.text(name));
        }
        for member in node.members().iter().filter(|member| !elsewhere.contains(&&*member.name)) {
            object.raw(&member.name, member.node.raw);
        }
    }
    Some(hosted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_leaves_the_body_and_the_version_enters_it() {
        let body = br#"{"model":"claude","max_tokens":9,"messages":[{"role":"user","content":"model"}],"stream":true,"x":0.10}"#;
        let of = |host| String::from_utf8(hosted(body, host, None).unwrap()).unwrap();
        let rest = r#""max_tokens":9,"messages":[{"role":"user","content":"model"}]"#;
        assert_eq!(of(Host::Bedrock), format!(r#"{{"anthropic_version":"bedrock-2023-05-31",{rest},"x":0.10}}"#));
        assert_eq!(
            of(Host::Vertex),
            format!(r#"{{"anthropic_version":"vertex-2023-10-16",{rest},"stream":true,"x":0.10}}"#)
        );
        let beta = hosted(br#"{"model":"c"}"#, Host::Bedrock, Some("a-1, b")).unwrap();
        let expected = r#"{"anthropic_version":"bedrock-2023-05-31","anthropic_beta":["a-1","b"]}"#;
        assert_eq!(String::from_utf8(beta).unwrap(), expected);
        assert!(hosted(b"[]", Host::Vertex, None).is_none() && hosted(b"{", Host::Vertex, None).is_none());
    }
}
