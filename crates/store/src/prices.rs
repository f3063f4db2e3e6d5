//! The price book: dated versions of prices, of which the newest of each source counts.

use crate::database::{Database, StoreError};
use crate::sql::{Connection, Kind, OptionalExtension, Row};
use domain::price::{Price, PriceSheet};
use domain::{PriceId, Timestamp};
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The book that ships with the executable; see `cargo xtask prices`.
const SHIPPED: &str = include_str!("../price_book.json");
/// Price versions kept compiled.
const VERSIONS_KEPT: usize = 10_000;

/// Who set a price. An operator's wins over the configuration file's, and that over the shipped book's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PriceSource {
    /// The book that ships with the executable.
    Book,
    /// The configuration file.
    Config,
    /// An operator, at run time.
    Operator,
}

impl PriceSource {
    /// The name in the database and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Book => "book",
            Self::Config => "config",
            Self::Operator => "operator",
        }
    }

    fn from_name(name: &str) -> Result<Self, StoreError> {
        [Self::Book, Self::Config, Self::Operator]
            .into_iter()
            .find(|source| source.name() == name)
            .ok_or_else(|| StoreError::Damaged(format!("price source {name:?}")))
    }
}

/// One version of one model's price.
#[derive(Clone, Debug, PartialEq)]
pub struct PriceVersion {
    /// What charges name.
    pub id: PriceId,
    /// The provider it holds for; `None` is any.
    pub provider: Option<String>,
    /// The model.
    pub model: String,
    /// Who set it.
    pub source: PriceSource,
    /// What kind of model it is, as the book says (`chat`, `embedding` …).
    pub mode: Option<String>,
    /// The price as written.
    pub sheet: PriceSheet,
    /// It was withdrawn: what it hid counts again.
    pub retired: bool,
    /// Since when it counts.
    pub created_at: Timestamp,
}

const COLUMNS: &str = "id, provider, model, source, mode, sheet, retired, created_at";

fn read(row: Row<'_>) -> Result<PriceVersion, StoreError> {
    let id = PriceId(row.get(0)?);
    let damaged = |error: String| StoreError::Damaged(format!("price {id}: {error}"));
    let sheet = row.get_ref(5)?.as_str().map_err(|error| damaged(error.to_string()))?;
    Ok(PriceVersion {
        id,
        provider: row.get(1)?,
        model: row.get(2)?,
        source: PriceSource::from_name(row.get_ref(3)?.as_str().unwrap_or_default())?,
        mode: row.get(4)?,
        sheet: serde_json::from_str(sheet).map_err(|error| damaged(error.to_string()))?,
        retired: row.get(6)?,
        created_at: Timestamp(row.get(7)?),
    })
}

/// Sets a price, as a new version unless the newest of that source says the same. A sheet that prices nothing is
/// refused.
pub fn set(
    connection: &Connection,
    provider: Option<&str>,
    model: &str,
    source: PriceSource,
    mode: Option<&str>,
    sheet: &PriceSheet,
    now: Timestamp,
) -> Result<PriceVersion, StoreError> {
    let sheet = sheet.clone().with_default_multiplier(model);
    sheet.compile_to_count().map_err(|error| StoreError::Refused(format!("price of {model:?}: {error}")))?;
    if let Some(newest) = newest(connection, provider, model, source)?
        && !newest.retired
        && newest.sheet == sheet
    {
        return Ok(newest);
    }
    insert(connection, provider, model, source, mode, &sheet, false, now)
}

/// Withdraws the price of one source. False if there is none.
pub fn retire(
    connection: &Connection,
    provider: Option<&str>,
    model: &str,
    source: PriceSource,
    now: Timestamp,
) -> Result<bool, StoreError> {
    match newest(connection, provider, model, source)? {
        Some(version) if !version.retired => {
            let PriceVersion { mode, sheet, .. } = version;
            insert(connection, provider, model, source, mode.as_deref(), &sheet, true, now)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn newest(
    connection: &Connection,
    provider: Option<&str>,
    model: &str,
    source: PriceSource,
) -> Result<Option<PriceVersion>, StoreError> {
    let mut statement = connection.prepare_cached(&format!(
        "select {COLUMNS} from prices where model = ?1 and provider is not distinct from ?2 and source = ?3 order by id desc limit 1"
    ))?;
    let mut rows = statement.query((model, provider, source.name()))?;
    rows.next()?.map(read).transpose()
}

#[expect(clippy::too_many_arguments, reason = "the columns of one row")]
fn insert(
    connection: &Connection,
    provider: Option<&str>,
    model: &str,
    source: PriceSource,
    mode: Option<&str>,
    sheet: &PriceSheet,
    retired: bool,
    now: Timestamp,
) -> Result<PriceVersion, StoreError> {
    let text = serde_json::to_string(sheet).expect("a sheet is always JSON");
    let id = connection
        .prepare_cached(
            "insert into prices (provider, model, source, mode, sheet, retired, created_at)
             values (?1, ?2, ?3, ?4, ?5, ?6, ?7) returning id",
        )?
        .query_row((provider, model, source.name(), mode, text, retired, now.0), |row| row.get(0).map(PriceId))?;
    Ok(PriceVersion {
        id,
        provider: provider.map(str::to_owned),
        model: model.to_owned(),
        source,
        mode: mode.map(str::to_owned),
        sheet: sheet.clone(),
        retired,
        created_at: now,
    })
}

/// Takes the shipped book in, once per release of the book. What operators set is untouched. Returns how many prices
/// are new.
///
/// The database reads the book itself: as values of ours it would take many times its size in memory, at the very moment
/// when nothing else does.
pub fn seed(connection: &Connection, now: Timestamp) -> Result<usize, StoreError> {
    let seeded: Option<String> = connection
        .query_row("select value from settings where name = 'price_book'", [], |row| row.get(0))
        .optional()?;
    if seeded.as_deref() == Some(shipped_date()) {
        return Ok(0);
    }
    let shipped = match connection.kind() {
        Kind::Sqlite => {
            "select value ->> 'provider' as provider, value ->> 'model' as model, value ->> 'mode' as mode,
                    json_remove(value, '$.provider', '$.model', '$.mode') as sheet
             from json_each(?1, '$.models')"
        }
        Kind::Postgres => {
            "select value ->> 'provider' as provider, value ->> 'model' as model, value ->> 'mode' as mode,
                    cast(value - 'provider' - 'model' - 'mode' as text) as sheet
             from jsonb_array_elements(cast(?1 as jsonb) -> 'models')"
        }
    };
    let inserted = connection.execute(
        &format!(
            "insert into prices (provider, model, source, mode, sheet, created_at)
             select shipped.provider, shipped.model, 'book', shipped.mode, shipped.sheet, ?2
             from ({shipped}) as shipped
             where shipped.sheet is distinct from (
               select sheet from prices
               where model = shipped.model and provider = shipped.provider and source = 'book' order by id desc limit 1)"
        ),
        (SHIPPED, now.0),
    )?;
    connection.execute(
        "insert into settings values ('price_book', ?1) on conflict (name) do update set value = excluded.value",
        [shipped_date()],
    )?;
    Ok(inserted)
}

/// The date of the shipped book, without reading all of it: it stands before the models.
fn shipped_date() -> &'static str {
    let after = |text: &'static str, mark: &str| text.split_once(mark).map(|(_, rest)| rest);
    after(SHIPPED, "\"date\":")
        .and_then(|rest| after(rest, "\""))
        .and_then(|rest| rest.split('"').next())
        .expect("the shipped book is checked by a test")
}

/// The versions that count now: the newest of each (source, provider, model) that is not retired.
pub fn current(connection: &Connection) -> Result<Vec<PriceVersion>, StoreError> {
    let mut statement = connection.prepare(&format!("select {COLUMNS} from prices where {COUNTS} order by id"))?;
    let mut rows = statement.query([])?;
    let mut versions = Vec::new();
    while let Some(row) = rows.next()? {
        versions.push(read(row)?);
    }
    Ok(versions)
}

/// Whether a row is the newest of its source, provider and model, and not retired.
const COUNTS: &str = "retired = 0 and not exists (
    select 1 from prices newer where newer.model = prices.model and newer.provider is not distinct from prices.provider
      and newer.source = prices.source and newer.id > prices.id)";

/// Models of one provider in the shipped book, by its names there, whose mode is one of `modes`. Names with a size of images
/// are prices of a model and none themselves.
pub fn models_of(connection: &Connection, providers: &[&str], modes: &[&str]) -> Result<Vec<String>, StoreError> {
    let mut statement = connection.prepare(&format!(
        "select distinct model from prices where source = 'book' and provider in {}
           and mode in {} and model not like '{SIZED}' and {COUNTS} order by model",
        connection.strings_of("?1"),
        connection.strings_of("?2")
    ))?;
    let list = |texts: &[&str]| serde_json::to_string(texts).expect("a list of strings is always JSON");
    let models = statement.query_map((list(providers), list(modes)), |row| row.get(0))?;
    models.collect::<Result<_, _>>().map_err(StoreError::from)
}

/// Names such as `hd/1024-x-1792/dall-e-3`: the price of a model's images of one size, and perhaps of one quality.
const SIZED: &str = "%-x-%/%";

/// The prices by size that may be those of one of these models.
fn sized_names(connection: &Connection, models: &[&str]) -> Result<Vec<String>, StoreError> {
    let models: HashSet<&str> = models.iter().copied().collect();
    let mut statement = connection.prepare(&format!("select distinct model from prices where model like '{SIZED}'"))?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?;
    let names = names.collect::<Result<Vec<_>, _>>()?;
    Ok(names.into_iter().filter(|name| sized(name).is_some_and(|(_, model)| models.contains(model))).collect())
}

/// A name in its look and its model: `hd/1024-x-1792` and `dall-e-3`.
fn sized(name: &str) -> Option<(&str, &str)> {
    let is_size = |part: &str| {
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        part.split_once("-x-").is_some_and(|(width, height)| is_number(width) && is_number(height))
    };
    let mut end = 0;
    for part in name.split('/').take(2) {
        end += part.len();
        if is_size(part) {
            return Some((&name[..end], name.get(end + 1..)?));
        }
        end += 1;
    }
    None
}

/// The version of that id, current or not.
pub fn by_id(connection: &Connection, id: PriceId) -> Result<Option<PriceVersion>, StoreError> {
    let mut statement = connection.prepare_cached(&format!("select {COLUMNS} from prices where id = ?1"))?;
    let mut rows = statement.query([id.0])?;
    rows.next()?.map(read).transpose()
}

/// A price that counts now, ready for arithmetic.
#[derive(Clone, Debug)]
pub struct Priced {
    /// The version.
    pub id: PriceId,
    /// Its arithmetic.
    pub price: Arc<Price>,
}

/// Prices that count now. A snapshot: changed prices make a new one.
pub struct PriceBook {
    by_model: HashMap<String, Vec<Candidate>>,
}

struct Candidate {
    provider: Option<String>,
    source: PriceSource,
    priced: Priced,
}

impl PriceBook {
    /// Compiles the versions that count for these models. The book has thousands; a gateway routes a few.
    pub fn load(connection: &Connection, models: &[&str]) -> Result<Self, StoreError> {
        let of_sizes = sized_names(connection, models)?;
        let models = Vec::from_iter(models.iter().copied().chain(of_sizes.iter().map(String::as_str)));
        let mut statement = connection.prepare(&format!(
            "select {COLUMNS} from prices where model in {} and {COUNTS}",
            connection.strings_of("?1")
        ))?;
        let models = serde_json::to_string(&models).expect("a list of strings is always JSON");
        let mut rows = statement.query([models])?;
        let mut versions = Vec::new();
        while let Some(row) = rows.next()? {
            versions.push(read(row)?);
        }
        Self::from_versions(versions)
    }

    /// A book of the given versions.
    pub fn from_versions(versions: Vec<PriceVersion>) -> Result<Self, StoreError> {
        let mut by_model: HashMap<String, Vec<Candidate>> = HashMap::new();
        for PriceVersion { id, provider, model, source, sheet, .. } in versions {
            let price = sheet.compile().map_err(|error| StoreError::Damaged(format!("price {id}: {error}")))?;
            if let Err(error) = sheet.compile_to_count() {
                // An earlier release took it. Its past charges stand; new ones go by another price, or are not made.
                tracing::warn!(%id, model, %error, "a price does not count");
                continue;
            }
            let priced = Priced { id, price: Arc::new(price) };
            by_model.entry(model).or_default().push(Candidate { provider, source, priced });
        }
        Ok(Self { by_model })
    }

    /// The price of a public model that `upstream_model` at `provider` serves, if there is one.
    ///
    /// What an operator or the configuration set for a public name wins, the first of `models` first; then what they set for the upstream's
    /// name; then the shipped book's price at that provider; then, for servers of unknown provider, the shipped
    /// price of the same name. A provider may have several names; of the book's prices that under its first name counts.
    pub fn find(&self, models: &[&str], providers: &[&str], upstream_model: &str) -> Option<&Priced> {
        let set_by_people = |name: &str| self.best(name, providers, PriceSource::Config);
        models
            .iter()
            .find_map(|model| set_by_people(model))
            .or_else(|| set_by_people(upstream_model))
            .or_else(|| self.best(upstream_model, providers, PriceSource::Book))
            .or_else(|| self.of_any_provider(upstream_model))
    }

    /// The prices of a model's images by how they look, such as `1024-x-1024` or `hd/1024-x-1792`. They go before
    /// [`PriceBook::find`]'s price, unless people set that one and not these.
    pub fn by_look(&self, model: &str, providers: &[&str], upstream_model: &str) -> Vec<(Box<str>, Priced)> {
        let set = |name: &str| self.best(name, providers, PriceSource::Config);
        let is_set = set(model).or_else(|| set(upstream_model)).is_some();
        let of_model = self.by_model.keys().filter_map(|name| {
            let (look, of) = sized(name).filter(|(_, of)| *of == model || *of == upstream_model)?;
            let priced = if is_set || of != upstream_model { set(name) } else { self.find(&[name], providers, name) };
            Some((look.into(), priced?.clone()))
        });
        let mut prices: Vec<(Box<str>, Priced)> = of_model.collect();
        // Of the same look of the public and of the upstream's name the later version counts.
        prices.sort_unstable_by(|(a, priced_a), (b, priced_b)| a.cmp(b).then(priced_b.id.cmp(&priced_a.id)));
        prices.dedup_by(|(a, _), (b, _)| a == b);
        prices
    }

    fn best(&self, model: &str, providers: &[&str], least: PriceSource) -> Option<&Priced> {
        // The place of a candidate's provider among the names: smaller is better, and any provider's is the last.
        let fitting = self.by_model.get(model)?.iter().filter(|candidate| candidate.source >= least);
        let placed = fitting.filter_map(|candidate| match candidate.provider.as_deref() {
            None => Some((usize::MAX, candidate)),
            Some(own) => Some((providers.iter().position(|name| *name == own)?, candidate)),
        });
        placed
            .max_by_key(|(place, candidate)| (candidate.source, Reverse(*place), candidate.priced.id))
            .map(|(_, candidate)| &candidate.priced)
    }

    /// Only if all providers' prices of that name agree on the maker: the plain name's own provider.
    fn of_any_provider(&self, model: &str) -> Option<&Priced> {
        const MAKERS: [&str; 8] =
            ["openai", "anthropic", "gemini", "deepseek", "mistral", "xai", "dashscope", "moonshot"];
        let candidates = self.by_model.get(model)?;
        MAKERS
            .iter()
            .find_map(|maker| candidates.iter().find(|candidate| candidate.provider.as_deref() == Some(maker)))
            .map(|candidate| &candidate.priced)
    }
}

/// Compiled prices of any version, also of the past: for recovery and for the sweeper.
pub struct Versions {
    database: Database,
    compiled: Mutex<HashMap<PriceId, Arc<Price>>>,
}

impl Versions {
    /// Versions of a database.
    pub fn new(database: Database) -> Self {
        Self { database, compiled: Mutex::new(HashMap::new()) }
    }

    /// The price of a version. Blocks on the database at first use of each.
    pub fn get(&self, id: PriceId) -> Result<Arc<Price>, StoreError> {
        if let Some(price) = self.compiled.lock().get(&id) {
            return Ok(price.clone());
        }
        let price = Arc::new(self.database.read_now(|connection| compiled(connection, id))?);
        let mut kept = self.compiled.lock();
        if kept.len() >= VERSIONS_KEPT {
            kept.clear();
        }
        kept.insert(id, price.clone());
        Ok(price)
    }
}

/// Reads and compiles one version.
pub(crate) fn compiled(connection: &Connection, id: PriceId) -> Result<Price, StoreError> {
    let version =
        by_id(connection, id)?.ok_or_else(|| StoreError::Damaged(format!("price {id} is not in the book")))?;
    version.sheet.compile().map_err(|error| StoreError::Damaged(format!("price {id}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::databases;
    use domain::Usage;

    fn sheet(json: &str) -> PriceSheet {
        serde_json::from_str(json).unwrap()
    }

    #[tokio::test]
    async fn the_shipped_book_is_taken_in_once() {
        for scratch in databases() {
            let database = &scratch.database;
            assert!(shipped_date().parse::<u16>().is_err() && shipped_date().starts_with("20"), "{}", shipped_date());
            let seeded = database.write(|tx| seed(tx, Timestamp(0))).await.unwrap();
            assert!(seeded > 1_000, "{seeded} models");
            assert_eq!(database.write(|tx| seed(tx, Timestamp(1))).await.unwrap(), 0);
            let book = database.read_now(|connection| PriceBook::load(connection, &["gpt-4o"])).unwrap();
            let gpt = book.find(&["gpt-4o"], &["openai"], "gpt-4o").unwrap();
            assert_eq!(gpt.price.charge(&Usage::tokens(1_000_000, 1_000_000), None).unwrap().to_string(), "12.50");
            let models = database.read_now(|connection| models_of(connection, &["openai"], &["chat"])).unwrap();
            assert!(models.iter().any(|model| model == "gpt-4o"));
            assert!(book.find(&["no-such-model"], &["openai"], "no-such-model").is_none());
        }
    }

    #[tokio::test]
    async fn images_have_prices_by_how_they_look() {
        for scratch in databases() {
            let database = &scratch.database;
            database.write(|tx| seed(tx, Timestamp(0))).await.unwrap();
            let set = |tx: &crate::sql::Transaction<'_>| {
                let of = |name: &str, usd: &str| {
                    let sheet = sheet(&format!(r#"{{"per_image":"{usd}"}}"#));
                    super::set(tx, None, name, PriceSource::Config, None, &sheet, Timestamp(0))
                };
                of("painter", "0.04")?;
                of("hd/1024-x-1792/painter", "0.12")?;
                of("1024-x-wide/painter", "9")
            };
            database.write(set).await.unwrap();
            let book = database
                .read_now(|connection| {
                    PriceBook::load(connection, &["painter", "gpt-image-1.5", "grok-imagine-image-2.0"])
                })
                .unwrap();
            let looks = |model: &str, provider: &str| {
                let charge = |priced: &Priced| {
                    let mut usage = Usage::default();
                    usage[domain::Meter::Image] = 1;
                    priced.price.charge(&usage, None).unwrap().to_string()
                };
                let prices = book.by_look(model, &[provider], model);
                prices.iter().map(|(look, priced)| format!("{look} {}", charge(priced))).collect::<Vec<_>>()
            };
            assert_eq!(looks("painter", "openai"), ["hd/1024-x-1792 0.12"]);
            assert_eq!(looks("grok-imagine-image-2.0", "xai"), ["low/1024-x-1024 0.04"]);
            assert_eq!(looks("gpt-image-1.5", "openai").len(), 15);
            assert_eq!(looks("gpt-4o", "openai"), [""; 0]);
            let models =
                database.read_now(|connection| models_of(connection, &["openai"], &["image_generation"])).unwrap();
            assert!(models.iter().all(|model| sized(model).is_none()) && models.contains(&"gpt-image-1.5".to_owned()));
        }
    }

    #[tokio::test]
    async fn every_shipped_price_can_be_compiled() {
        for scratch in databases() {
            let database = &scratch.database;
            database.write(|tx| seed(tx, Timestamp(0))).await.unwrap();
            for version in database.read_now(current).unwrap() {
                assert!(version.sheet.compile_to_count().is_ok(), "{version:?}");
            }
        }
    }

    #[tokio::test]
    async fn m_33_a_changed_price_is_a_new_version_and_the_old_one_stays() {
        for scratch in databases() {
            let database = &scratch.database;
            let set = |json: &'static str| {
                let database = database.clone();
                async move {
                    let set = move |tx: &crate::sql::Transaction<'_>| {
                        super::set(tx, None, "m", PriceSource::Config, None, &sheet(json), Timestamp(0))
                    };
                    database.write(set).await.unwrap().id
                }
            };
            let cheap = set(r#"{"input_per_million":"1","output_per_million":"2"}"#).await;
            assert_eq!(set(r#"{"input_per_million":"1","output_per_million":"2"}"#).await, cheap, "nothing changed");
            let dear = set(r#"{"input_per_million":"3","output_per_million":"6"}"#).await;
            assert_ne!(cheap, dear);
            let versions = Versions::new(database.clone());
            let cost = |id| versions.get(id).unwrap().charge(&Usage::tokens(1_000_000, 0), None).unwrap().to_string();
            assert_eq!((cost(cheap), cost(dear)), ("1.00".to_owned(), "3.00".to_owned()));
            let book = database.read_now(|connection| PriceBook::load(connection, &["m"])).unwrap();
            assert_eq!(book.find(&["m"], &["any"], "m").unwrap().id, dear);
        }
    }

    #[tokio::test]
    async fn an_operators_price_wins_until_it_is_retired() {
        for scratch in databases() {
            let database = &scratch.database;
            database
                .write(|tx| {
                    let (cheap, dear) = (sheet(r#"{"input_per_million":"1"}"#), sheet(r#"{"input_per_million":"9"}"#));
                    set(tx, None, "m", PriceSource::Config, None, &cheap, Timestamp(0))?;
                    set(tx, None, "m", PriceSource::Operator, None, &dear, Timestamp(0))
                })
                .await
                .unwrap();
            let rate = || {
                let book = database.read_now(|connection| PriceBook::load(connection, &["m"])).unwrap();
                let priced = book.find(&["m"], &["any"], "x").unwrap();
                priced.price.charge(&Usage::tokens(1_000_000, 0), None).unwrap().to_string()
            };
            assert_eq!(rate(), "9.00");
            let retired = database.write(|tx| retire(tx, None, "m", PriceSource::Operator, Timestamp(1))).await;
            assert!(retired.unwrap());
            assert_eq!(rate(), "1.00");
        }
    }

    #[tokio::test]
    async fn m_34_a_price_that_prices_nothing_is_refused_on_write() {
        for scratch in databases() {
            let database = &scratch.database;
            let empty = database
                .write(|tx| set(tx, None, "m", PriceSource::Operator, None, &PriceSheet::default(), Timestamp(0)))
                .await;
            assert!(matches!(empty, Err(StoreError::Refused(_))), "{empty:?}");
            let zero = || sheet(r#"{"input_per_million":"0","output_per_million":"0"}"#);
            let refused =
                database.write(move |tx| set(tx, None, "m", PriceSource::Operator, None, &zero(), Timestamp(0))).await;
            assert!(matches!(refused, Err(StoreError::Refused(_))), "{refused:?}");
            let free = sheet(r#"{"free":true}"#);
            let free = database.write(move |tx| set(tx, None, "f", PriceSource::Operator, None, &free, Timestamp(0)));
            free.await.unwrap();
            let book = database.read_now(|connection| PriceBook::load(connection, &["m", "f"])).unwrap();
            assert!(book.find(&["f"], &["any"], "f").is_some());
        }
    }

    /// An earlier release took them.
    #[tokio::test]
    async fn m_34_stored_rates_of_zero_serve_nobody_and_can_still_be_verified() {
        for scratch in databases() {
            let database = &scratch.database;
            let zero = sheet(r#"{"model_rate":"0"}"#);
            let kept = database
                .write(move |tx| insert(tx, None, "m", PriceSource::Operator, None, &zero, false, Timestamp(0)))
                .await
                .unwrap();
            let book = database.read_now(|connection| PriceBook::load(connection, &["m"])).unwrap();
            assert!(book.find(&["m"], &["any"], "m").is_none());
            let price = Versions::new(database.clone()).get(kept.id).unwrap();
            assert_eq!(price.charge(&Usage::tokens(5, 5), None).unwrap(), domain::Nanos::ZERO);
        }
    }
}
