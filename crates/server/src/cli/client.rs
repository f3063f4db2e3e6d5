//! One client of the operator's API, whatever stands behind it.

use crate::admin::{self, AccountObject, BEARER, Page, TEXT_CSV};
use crate::app::App;
use crate::config::Config;
use crate::serve::SOCKET_NAME;
use anyhow::{Context, bail};
use axum::Router;
use bytes::Bytes;
use gateway::upstream::{HttpClient, http_client};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Write;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::StoreError;
use store::database::Database;
use store::sql::PostgresUrl;
use tokio::net::UnixStream;
use tower::ServiceExt;

/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long an answer may take. An audit of a large ledger takes longest.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3600);

/// Where commands go.
#[derive(Debug)]
pub enum Target {
    /// To a gateway somewhere.
    Remote {
        /// Its address.
        url: String,
        /// What it is told to believe us by.
        operator_key: String,
    },
    /// To whoever has this data directory open, or else to the directory itself.
    Directory {
        /// The data directory.
        path: PathBuf,
        /// Its database, where that is PostgreSQL.
        database: Option<PostgresUrl>,
    },
}

/// A client that is ready to ask.
pub struct Client {
    door: Door,
}

enum Door {
    Remote { http: Box<HttpClient>, base: String, authorization: HeaderValue },
    Socket(PathBuf),
    Within { router: Router, app: Arc<App> },
}

impl Client {
    /// Finds the gateway. Only with `may_create` a missing data directory is made.
    pub async fn connect(target: Target, may_create: bool) -> anyhow::Result<Self> {
        let door = match target {
            Target::Remote { url, operator_key } => remote(&url, &operator_key)?,
            Target::Directory { path, database } => local(&path, database, may_create).await?,
        };
        Ok(Self { door })
    }

    /// Leaves nothing unwritten.
    pub async fn close(self) -> anyhow::Result<()> {
        if let Door::Within { app, .. } = &self.door {
            app.ledger.flush().await.context("cannot finish writing")?;
        }
        Ok(())
    }

    /// Reads something.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        parsed(&self.call(Method::GET, path, None).await?)
    }

    /// Sends something and reads what came of it.
    pub async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        parsed(&self.call(method, path, Some(serde_json::to_vec(body)?)).await?)
    }

    /// Deletes something.
    pub async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.call(Method::DELETE, path, None).await.map(drop)
    }

    /// Asks for a table.
    pub async fn csv(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> anyhow::Result<String> {
        let body = body.map(serde_json::to_vec).transpose()?;
        let table = self.ask(method, path, body, TEXT_CSV).await?;
        String::from_utf8(table.to_vec()).context("the gateway's answer is no text")
    }

    /// Removes something that leaves something to be told.
    pub async fn remove<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        parsed(&self.call(Method::DELETE, path, None).await?)
    }

    /// Reads a list of at most `limit` items, a page at a time. `path` ends where parameters can be added.
    pub async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
        after: i64,
        limit: u32,
        page_size: u32,
    ) -> anyhow::Result<Page<T>> {
        let mut list = Page { data: Vec::new(), next: Some(after) };
        while let Some(after) = list.next {
            let missing = limit.saturating_sub(u32::try_from(list.data.len()).unwrap_or(u32::MAX));
            if missing == 0 {
                break;
            }
            let joint = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{joint}after={after}&limit={}", missing.min(page_size));
            let page: Page<T> = self.get(&path).await?;
            list.data.extend(page.data);
            list.next = page.next;
        }
        Ok(list)
    }

    /// The account of that name, or else of that id.
    pub async fn account(&self, name_or_id: &str) -> anyhow::Result<AccountObject> {
        let path = format!("/api/v1/accounts?name={}", encoded(name_or_id));
        let named: Page<AccountObject> = self.get(&path).await?;
        match (named.data.into_iter().next(), name_or_id.parse::<i64>()) {
            (Some(account), _) => Ok(account),
            (None, Ok(id)) => self.get(&format!("/api/v1/accounts/{id}")).await,
            (None, Err(_)) => bail!("there is no account named {name_or_id:?}; `tollgate account list` shows them"),
        }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> anyhow::Result<Bytes> {
        self.ask(method, path, body, "application/json").await
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        accepted: &'static str,
    ) -> anyhow::Result<Bytes> {
        let mut request = Request::builder().method(method).uri(path).header(header::ACCEPT, accepted);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default())))?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.door.pass(request));
        let (status, bytes) = answer.await.context("the gateway did not answer")??;
        if status.is_success() {
            return Ok(bytes);
        }
        bail!(refusal(status, &bytes))
    }
}

impl Door {
    async fn pass(&self, mut request: Request<Full<Bytes>>) -> anyhow::Result<(StatusCode, Bytes)> {
        match self {
            Self::Remote { http, base, authorization } => {
                *request.uri_mut() = format!("{base}{}", request.uri()).parse().context("--url is no address")?;
                request.headers_mut().insert(header::AUTHORIZATION, authorization.clone());
                let response = http.request(request).await.with_context(|| format!("cannot reach {base}"))?;
                collected(response).await
            }
            Self::Socket(path) => {
                let failed = || format!("the gateway does not answer on {}", path.display());
                let stream = UnixStream::connect(path).await.with_context(failed)?;
                let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
                let connection = tokio::spawn(connection);
                request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
                let answer = collected(sender.send_request(request).await.with_context(failed)?).await;
                connection.abort();
                answer
            }
            Self::Within { router, .. } => {
                let response = router.clone().oneshot(request.map(axum::body::Body::new)).await;
                collected(response.unwrap_or_else(|never| match never {})).await
            }
        }
    }
}

async fn collected<B>(response: Response<B>) -> anyhow::Result<(StatusCode, Bytes)>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!(error)).context("the answer could not be read")?;
    Ok((status, body.to_bytes()))
}

fn remote(url: &str, operator_key: &str) -> anyhow::Result<Door> {
    let base = url.trim_end_matches('/');
    let uri: Uri = base.parse().with_context(|| format!("{base:?} is no address such as http://127.0.0.1:8080"))?;
    let (Some("http" | "https"), Some(host), None) = (uri.scheme_str(), uri.host(), uri.query()) else {
        bail!("{base:?} is no address such as http://127.0.0.1:8080");
    };
    if uri.scheme_str() == Some("http") && !is_this_machine(host) {
        eprintln!("warning: the operator's key travels to {host} unencrypted; prefer https or a tunnel");
    }
    let mut authorization = HeaderValue::try_from(format!("{BEARER}{}", operator_key.trim()))
        .map_err(|_| anyhow::anyhow!("the operator's key has characters that no key has"))?;
    authorization.set_sensitive(true);
    Ok(Door::Remote { http: Box::new(http_client()), base: base.to_owned(), authorization })
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// A gateway that runs answers on its socket. Where none does, the directory is ours to open; its lock sees to it
/// that no gateway starts meanwhile.
async fn local(directory: &Path, database: Option<PostgresUrl>, may_create: bool) -> anyhow::Result<Door> {
    let socket = directory.join(SOCKET_NAME);
    match UnixStream::connect(&socket).await {
        Ok(_) => return Ok(Door::Socket(socket)),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            bail!("{} is another user's: become that user, or use --url with an operator's key", directory.display())
        }
        Err(_) => {}
    }
    if !may_create && !Database::is_in(directory) {
        bail!(
            "{} is no data directory yet: `tollgate serve` creates one there; --data-dir names another",
            directory.display()
        );
    }
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    let mut config = Config::default();
    if let Some(url) = database {
        config.database.name(url);
    }
    match App::open(directory, config, metrics).await {
        Ok(app) => Ok(Door::Within { router: admin::local_router(app.clone()), app }),
        Err(error) if matches!(error.downcast_ref(), Some(StoreError::InUse(_))) => bail!(
            "a gateway has {} open but does not answer on {}: if it is just starting or stopping, try again",
            directory.display(),
            socket.display()
        ),
        Err(error) => Err(error),
    }
}

fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(bytes).context("the gateway's answer is not understood; is it of another release?")
}

/// What a refusal says, in one line.
fn refusal(status: StatusCode, body: &[u8]) -> String {
    let told = serde_json::from_slice::<admin::ErrorObject>(body).map(|refusal| refusal.error.message);
    let text = told.unwrap_or_else(|_| format!("the gateway answered {status}"));
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// A value as it stands in a query string.
pub fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
            _ => write!(text, "%{byte:02X}").expect("writing to a text never fails"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::CreateAccount;

    #[test]
    fn s_08_values_stay_values_in_a_query() {
        assert_eq!(encoded("a-b.c_d~9"), "a-b.c_d~9");
        assert_eq!(encoded("a&limit=0 #é'"), "a%26limit%3D0%20%23%C3%A9%27");
    }

    #[test]
    fn refusals_are_one_line() {
        let body = br#"{"error":{"message":"no\nsuch","type":"t","param":null,"code":"c"}}"#;
        assert_eq!(refusal(StatusCode::NOT_FOUND, body), "no such");
        assert_eq!(refusal(StatusCode::BAD_GATEWAY, b"<html>"), "the gateway answered 502 Bad Gateway");
    }

    #[test]
    fn addresses_of_gateways() {
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        for url in ["http://127.0.0.1:8080", "https://gate.example/", "http://[::1]:1"] {
            assert!(remote(url, "op-tg").is_ok(), "{url}");
        }
        for url in ["", "localhost:8080", "ftp://x", "http://x?y=1", "/tmp/socket"] {
            assert!(remote(url, "op-tg").is_err(), "{url}");
        }
        assert!(remote("http://127.0.0.1:1", "a\nb").is_err());
        assert!(is_this_machine("[::1]") && is_this_machine("localhost") && !is_this_machine("10.0.0.1"));
    }

    fn at(directory: &Path) -> Target {
        Target::Directory { path: directory.to_owned(), database: None }
    }

    #[tokio::test]
    async fn a_missing_directory_is_not_made_by_looking() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("data");
        let refused = Client::connect(at(&directory), false).await.err().unwrap();
        assert!(refused.to_string().contains("tollgate serve"), "{refused}");
        assert!(!directory.exists());
    }

    #[tokio::test]
    async fn d_08_a_directory_in_use_is_said_to_be() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("data");
        let client = Client::connect(at(&directory), true).await.unwrap();
        let refused = Client::connect(at(&directory), true).await.err().unwrap();
        assert!(refused.to_string().contains("does not answer"), "{refused}");
        client.close().await.unwrap();
    }

    /// The three doors lead into one room.
    #[tokio::test]
    async fn the_socket_and_the_directory_answer_alike() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("data");
        let within = Client::connect(at(&directory), true).await.unwrap();
        let new = CreateAccount {
            name: "acme & sons".to_owned(),
            balance: Some("5.00".parse().unwrap()),
            error_profile: None,
            shows_upstream: None,
            time_zone: None,
            multiplier: None,
            weight: None,
            tier: None,
        };
        let created: AccountObject = within.send(Method::POST, "/api/v1/accounts", &new).await.unwrap();
        let Door::Within { router, .. } = &within.door else { panic!("the directory was not opened here") };

        let listener = tokio::net::UnixListener::bind(directory.join(SOCKET_NAME)).unwrap();
        let server = tokio::spawn(axum::serve(listener, router.clone()).into_future());
        let socket = Client::connect(at(&directory), false).await.unwrap();
        assert!(matches!(socket.door, Door::Socket(_)));
        for wanted in ["acme & sons", &created.id.to_string()] {
            let (here, there) = (within.account(wanted).await.unwrap(), socket.account(wanted).await.unwrap());
            assert_eq!(serde_json::to_string(&here).unwrap(), serde_json::to_string(&there).unwrap());
        }
        let refused = socket.account("nobody").await.err().unwrap().to_string();
        assert!(refused.contains("no account named \"nobody\""), "{refused}");
        server.abort();
        within.close().await.unwrap();
    }
}
