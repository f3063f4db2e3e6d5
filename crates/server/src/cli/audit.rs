//! `tollgate audit`

use super::account::PAGE_SIZE;
use super::client::{Client, encoded};
use super::output::{Column, Format, table};
use crate::admin::{DeedObject, Page};
use clap::Args;

/// Which deeds to show.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Only by this operator, or by a member as user:7 or key:7.
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// Only to this subject, such as "account 7".
    #[arg(long, value_name = "SUBJECT")]
    subject: Option<String>,
    /// From then on.
    #[arg(long, value_name = "RFC3339")]
    from: Option<jiff::Timestamp>,
    /// Before then.
    #[arg(long, value_name = "RFC3339")]
    until: Option<jiff::Timestamp>,
    /// Only deeds before this one, by id.
    #[arg(long, value_name = "ID")]
    before: Option<i64>,
    /// Show at most that many, the newest.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

pub async fn run(args: AuditArgs, client: &Client, format: Format) -> anyhow::Result<()> {
    let mut log = Page { data: Vec::new(), next: args.before };
    loop {
        let missing = args.limit.saturating_sub(u32::try_from(log.data.len()).unwrap_or(u32::MAX));
        let page: Page<DeedObject> = client.get(&args.path(log.next, missing.min(PAGE_SIZE))).await?;
        log.data.extend(page.data);
        log.next = page.next;
        if log.next.is_none() || log.data.len() >= args.limit as usize {
            break;
        }
    }
    format.print(&log, words)?;
    if let Some(before) = log.next {
        eprintln!("there are older ones: --before {before} continues, --limit shows more at once");
    }
    Ok(())
}

impl AuditArgs {
    fn path(&self, before: Option<i64>, limit: u32) -> String {
        let mut path = format!("/api/v1/audit?limit={limit}");
        let parameters = [
            ("operator", self.operator.clone()),
            ("subject", self.subject.clone()),
            ("from", self.from.map(|at| at.to_string())),
            ("until", self.until.map(|at| at.to_string())),
            ("before", before.map(|id| id.to_string())),
        ];
        for (name, value) in parameters {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encoded(&value)));
            }
        }
        path
    }
}

fn words(log: &Page<DeedObject>) -> String {
    use Column::{Number, Text};
    let rows = log.data.iter().map(|deed| {
        [
            deed.id.to_string(),
            deed.at.to_string(),
            deed.operator.clone(),
            deed.action.clone(),
            deed.subject.clone(),
            deed.detail.to_string(),
        ]
    });
    table([Number("id"), Text("at"), Text("by"), Text("action"), Text("subject"), Text("detail")], rows)
}
