//! What a start puts in place: prices, and at the very first one an operator, an account and a key.

use crate::admin::promote;
use crate::app::App;
use crate::config::{Config, SIMULATOR};
use domain::price::PriceSheet;
use domain::{Nanos, Timestamp};
use gateway::simulator;
use std::collections::HashSet;
use store::accounts::{self, Account};
use store::database::Database;
use store::keys::{self, NewKey};
use store::operators;
use store::prices::{self, PriceSource};
use store::secrets::{SecretKind, hint};

/// What the first account starts with.
const FIRST_BALANCE: Nanos = Nanos(5_000_000_000);
/// Its name, and that of its key and of the first operator.
const FIRST_NAME: &str = "default";

/// What the first start created. The secrets are shown once and stored nowhere.
pub struct Welcome {
    /// The operator's key.
    pub operator_key: String,
    /// The first account's name.
    pub account: String,
    /// What it starts with.
    pub balance: Nanos,
    /// The first key.
    pub key: String,
}

/// Takes in the shipped price book, the file's prices and the simulator's.
pub async fn apply_prices(database: &Database, config: &Config, now: Timestamp) -> anyhow::Result<()> {
    let entries = config.prices.clone();
    database
        .write(move |transaction| {
            prices::seed(transaction, now)?;
            for (model, input, output) in simulator::MODELS {
                let sheet = simulator_sheet(input, output);
                prices::set(transaction, Some(SIMULATOR), model, PriceSource::Book, Some("chat"), &sheet, now)?;
            }
            for entry in &entries {
                let provider = entry.provider.as_deref();
                prices::set(transaction, provider, &entry.model, PriceSource::Config, None, &entry.sheet, now)?;
            }
            Ok(())
        })
        .await?;
    Ok(())
}

/// Withdraws prices that an earlier file set and this one does not: what they hid counts again. Only for a process that
/// serves: the command line may know no file, or another one.
pub async fn retire_prices(app: &App) -> anyhow::Result<()> {
    let kept: HashSet<(Option<String>, String)> =
        app.config.prices.iter().map(|entry| (entry.provider.clone(), entry.model.clone())).collect();
    let now = app.now();
    let retire = app.database.write(move |transaction| {
        let current = prices::current(transaction)?.into_iter();
        let gone = current.filter(|version| version.source == PriceSource::Config && !version.retired);
        let gone: Vec<_> =
            gone.map(|version| (version.provider, version.model)).filter(|name| !kept.contains(name)).collect();
        for (provider, model) in &gone {
            prices::retire(transaction, provider.as_deref(), model, PriceSource::Config, now)?;
        }
        Ok(gone)
    });
    let gone = retire.await?;
    if gone.is_empty() {
        return Ok(());
    }
    let models: Vec<_> = gone.into_iter().map(|(_, model)| model).collect();
    tracing::info!(?models, "prices that stand in the file no more were withdrawn");
    app.reload_prices().await?;
    Ok(())
}

fn simulator_sheet(input: &str, output: &str) -> PriceSheet {
    serde_json::from_value(serde_json::json!({
        "input_per_million": input,
        "output_per_million": output,
        "max_output_tokens": simulator::OUTPUT_TOKENS_MAX,
    }))
    .expect("the simulator's prices are well-formed")
}

/// Creates what a new data directory lacks. `None` when it was not new.
pub async fn create_first(app: &App) -> anyhow::Result<Option<Welcome>> {
    if app.database.read(operators::exist).await? {
        return Ok(None);
    }
    let now = app.now();
    let secrets = app.authenticator.secrets();
    let (operator_key, key) = (secrets.generate(SecretKind::Operator), secrets.generate(SecretKind::Key));
    let operator_digest =
        secrets.digest(SecretKind::Operator, &operator_key).expect("a generated secret is well-formed");
    let key_digest = secrets.digest(SecretKind::Key, &key).expect("a generated secret is well-formed");
    let key_hint = hint(&key);
    let account: Account = app
        .database
        .write(move |transaction| {
            let account = match accounts::by_name(transaction, FIRST_NAME)? {
                Some(account) => account,
                None => accounts::create(transaction, FIRST_NAME, now)?,
            };
            let new = NewKey { name: FIRST_NAME.to_owned(), ..NewKey::default() };
            keys::create(transaction, account.id, &new, &key_hint, &key_digest, now)?;
            operators::create(transaction, FIRST_NAME, &operator_digest, now)?;
            Ok(account)
        })
        .await?;
    app.ledger
        .top_up(account.id, FIRST_BALANCE, "first start", now)
        .await
        .map_err(|error| anyhow::anyhow!("cannot give the first account its balance: {error:?}"))?;
    promote(app, account.id).await;
    Ok(Some(Welcome { operator_key, account: account.name, balance: FIRST_BALANCE, key }))
}
