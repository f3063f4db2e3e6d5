//! Values that are not written into the file: `${NAME}` and `file:PATH`.

use anyhow::{Context, bail};

/// The value that a text stands for. Errors name the variable or the file, never a value.
pub fn expand(text: &str) -> anyhow::Result<String> {
    if let Some(path) = text.strip_prefix("file:") {
        let value = std::fs::read_to_string(path).with_context(|| format!("cannot read the file {path}"))?;
        return Ok(value.trim_end_matches(['\r', '\n']).to_owned());
    }
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        expanded.push_str(&rest[..start]);
        let Some(length) = rest[start..].find('}') else { bail!("`${{` without `}}`") };
        let name = &rest[start + 2..start + length];
        let value = std::env::var(name)
            .ok()
            .filter(|value| !value.is_empty())
            .with_context(|| format!("the environment variable {name} is not set"))?;
        expanded.push_str(&value);
        rest = &rest[start + length + 1..];
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_and_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "sk-1\n").unwrap();
        assert_eq!(expand(&format!("file:{}", path.display())).unwrap(), "sk-1");
        assert_eq!(expand("plain").unwrap(), "plain");
        assert_eq!(expand("a${PATH}b").unwrap(), format!("a{}b", std::env::var("PATH").unwrap()));
        assert!(expand("${NO_SUCH_VARIABLE}").unwrap_err().to_string().contains("NO_SUCH_VARIABLE"));
        assert!(expand("${PATH").is_err());
        assert!(expand("file:/no/such/file").is_err());
    }
}
