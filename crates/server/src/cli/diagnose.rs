//! `tollgate diagnose`: needs no gateway and no data, for the meaning of an answer depends on neither.

use super::output::{Column, Format, or_dash, properties, table};
use crate::diagnose::{ANSWER_BYTES_MAX, Diagnosis, FailureFound, LimitFound, provider_of};
use anyhow::{Context, bail};
use clap::Args;
use domain::Timestamp;
use protocol::failure::Pasted;
use protocol::provider::Provider;
use std::fs::File;
use std::io::{IsTerminal, Read, stdin};
use std::path::{Path, PathBuf};

/// A provider's answer.
#[derive(Debug, Args)]
pub struct DiagnoseArgs {
    /// A file with the answer as `curl -i` prints it, or with its body alone; - or nothing is the standard input.
    file: Option<PathBuf>,
    /// Its status, where the text does not begin with it.
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(100..600))]
    status: Option<u16>,
    /// Whose answer it is, such as openai or anthropic; guessed where it is left out.
    #[arg(long, value_parser = provider_of)]
    provider: Option<Provider>,
}

pub fn run(args: &DiagnoseArgs, format: Format) -> anyhow::Result<()> {
    let text = match args.file.as_deref() {
        Some(path) if path != Path::new("-") => {
            let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            read(file).with_context(|| format!("cannot read {}", path.display()))?
        }
        _ => {
            if stdin().is_terminal() {
                eprintln!("paste the answer as `curl -i` prints it, then press Ctrl-D");
            }
            read(stdin().lock()).context("cannot read the standard input")?
        }
    };
    let pasted = match (Pasted::read(&text), args.status) {
        (Ok(pasted), status) => Pasted { status: status.or(pasted.status), ..pasted },
        (Err(_), Some(status)) => Pasted { status: Some(status), ..Pasted::default() },
        (Err(error), None) => bail!(error),
    };
    let now = Timestamp(jiff::Timestamp::now().as_millisecond());
    format.print(&Diagnosis::of(args.provider, &pasted, now), words)
}

/// A text within bounds. What is no UTF-8 is replaced: a page in another encoding is still a page.
fn read(source: impl Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    source.take(ANSWER_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > ANSWER_BYTES_MAX {
        bail!("it is larger than {ANSWER_BYTES_MAX} bytes; its beginning is enough");
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn words(diagnosis: &Diagnosis) -> String {
    let guessed = if diagnosis.provider_guessed { " (guessed)" } else { "" };
    let provider = format!("{}{guessed}", diagnosis.provider);
    let status = or_dash(diagnosis.status);
    let mut text = match &diagnosis.failure {
        None => properties([
            ("provider", provider),
            ("status", status),
            ("cause", "none: this is an answer of success".to_owned()),
        ]),
        Some(failure) => failed(provider, status, failure),
    };
    if !diagnosis.limits.is_empty() {
        text.push_str("\n\n");
        text.push_str(&limits(&diagnosis.limits));
    }
    text
}

fn failed(provider: String, status: String, failure: &FailureFound) -> String {
    let recovers = match (failure.recovers_at, failure.recovers_in_ms, failure.recovery_basis) {
        (Some(at), Some(0), _) => format!("it did, at {at}"),
        (Some(at), Some(ms), Some(basis)) => format!("{at}, in {} ({basis})", span(ms)),
        _ => "not by waiting".to_owned(),
    };
    let caller = &failure.caller;
    let evidence = failure.evidence.iter().map(|found| format!("{}: {}", found.field, found.value));
    properties([
        ("provider", provider),
        ("status", status),
        ("cause", format!("{}: {}", failure.cause, failure.meaning)),
        ("fault", failure.fault.to_owned()),
        ("concerns", failure.scope.to_owned()),
        ("retry", failure.retry.to_owned()),
        ("recovers", recovers),
        ("another account", failure.other_account_helps.to_owned()),
        ("another model", failure.other_model_helps.to_owned()),
        ("what to do", failure.action.clone()),
        ("evidence", evidence.collect::<Vec<_>>().join("; ")),
        ("provider says", one_line(&failure.provider_message)),
        ("callers get", format!("{} {}: {}", caller.status, caller.code, one_line(&caller.message))),
    ])
}

fn limits(limits: &[LimitFound]) -> String {
    use Column::{Number, Text};
    let rows = limits.iter().map(|limit| {
        [
            limit.metric.to_owned(),
            limit.scope.to_owned(),
            limit.window_seconds.map_or("-".to_owned(), |seconds| span(seconds.unsigned_abs().saturating_mul(1000))),
            or_dash(limit.limit),
            or_dash(limit.remaining),
            limit.used_percent.map_or("-".to_owned(), |percent| format!("{percent:.1} %")),
            or_dash(limit.resets_at),
        ]
    });
    table(
        [
            Text("limit"),
            Text("scope"),
            Text("window"),
            Number("amount"),
            Number("remaining"),
            Number("used"),
            Text("resets at"),
        ],
        rows,
    )
}

/// `1d 2h`, `5m 20s`, `850ms`: the two largest parts are enough.
fn span(ms: u64) -> String {
    const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let mut rest = ms;
    let mut parts = Vec::new();
    for (unit, size) in UNITS {
        if rest >= size {
            parts.push(format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

/// A text of a stranger on one line, and not without end.
fn one_line(text: &str) -> String {
    const CHARS_MAX: usize = 400;
    if text.is_empty() {
        return "-".to_owned();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn said(text: &str, json: bool) -> String {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("answer");
        std::fs::write(&file, text).unwrap();
        let args = DiagnoseArgs { file: Some(file), status: None, provider: None };
        run(&args, if json { Format::Json } else { Format::Table }).unwrap();
        super::super::output::tests::PRINTED.take()
    }

    #[test]
    fn an_answer_is_explained() {
        let answer = "HTTP/2 429\nx-groq-region: x\nretry-after: 20\n\
                      x-ratelimit-limit-tokens: 6000\nx-ratelimit-remaining-tokens: 0\nx-ratelimit-reset-tokens: 20s\n\n\
                      {\"error\":{\"message\":\"on tokens\\u001b[31m per minute (TPM)\",\"code\":\"rate_limit_exceeded\"}}";
        let text = said(answer, false);
        for part in
            ["groq (guessed)", "rate.tokens", "same_upstream_later", "(told)", "no_upstream_available", "100.0 %"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\u{1b}'), "what strangers write does not reach the terminal");
        let json: Value = serde_json::from_str(&said(answer, true)).unwrap();
        assert_eq!((&json["object"], &json["failure"]["cause"]), (&"diagnosis".into(), &"rate.tokens".into()));
        assert!(said("HTTP/2 200\n\n{\"choices\":[]}", false).contains("none"));
    }

    #[test]
    fn nothing_is_refused_with_advice() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("answer");
        std::fs::write(&file, " \n").unwrap();
        let args = |file: &Path, status| DiagnoseArgs { file: Some(file.to_owned()), status, provider: None };
        let refused = run(&args(&file, None), Format::Table).unwrap_err().to_string();
        assert!(refused.contains("curl -i"), "{refused}");
        run(&args(&file, Some(503)), Format::Table).unwrap();
        assert!(super::super::output::tests::PRINTED.take().contains("overloaded"));
        std::fs::write(&file, vec![b'x'; ANSWER_BYTES_MAX + 1]).unwrap();
        assert!(run(&args(&file, None), Format::Table).is_err());
        assert!(run(&args(&directory.path().join("none"), None), Format::Table).is_err());
    }

    #[test]
    fn spans_have_two_parts() {
        for (ms, text) in [(0, "0s"), (850, "850ms"), (20_000, "20s"), (80_500, "1m 20s"), (93_600_000, "1d 2h")] {
            assert_eq!(span(ms), text);
        }
    }
}
