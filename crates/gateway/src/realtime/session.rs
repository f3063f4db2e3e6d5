//! One session from its first event to its last.

use super::connect::Socket;
use super::reserve::{Need, Ready, Reserve};
use super::{Place, SESSION_MAX};
use crate::authenticate::permit;
use crate::exchange::{OUTPUT_ADDED_MAX, PROMPT_ADDED_MAX};
use crate::failure::{Case, Failure, Fault};
use crate::lifecycle::Gateway;
use crate::limiter::Entered;
use crate::settle::Held;
use domain::ledger::Ending;
use domain::{Meter, Usage};
use futures_util::{SinkExt, StreamExt};
use protocol::openai::{BadRequest, Reported};
use protocol::realtime::{
    Asks, AudioFormat, Cap, ClientEvent, ServerEvent, Update, error_event, larger, read_client, read_server,
};
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use store::keys::Caller;
use store::progress::Mark;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

/// How often a session looks at the clock.
const TICK: Duration = Duration::from_secs(1);
/// Both sides are asked for a sign of life this often, and given up when none comes for longer than the other.
const PING_EVERY: Duration = Duration::from_secs(20);
const SILENCE_MAX: Duration = Duration::from_secs(65);
/// A session in which its caller does nothing for so long is ended: it keeps money held.
const IDLE_MAX: Duration = Duration::from_secs(15 * 60);
/// How long one side may take to read an event.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a response that was stopped may take to tell what it consumed, and a caller to say goodbye.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Responses under way at once, and asked for but not begun.
const RUNNING_MAX: usize = 16;
const PROMISED_MAX: usize = 4;

/// Looks whether a session's caller still may ask, and how.
pub type Renew = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Arc<Caller>, Failure>> + Send>> + Send + Sync>;

/// A session whose upstream's side is open.
pub struct Session {
    gateway: Arc<Gateway>,
    reserve: Reserve,
    renew: Renew,
    socket: Option<Box<Socket>>,
    /// For the next response, whoever brings it about.
    ready: Option<Ready>,
    /// For responses that were asked for and have not begun, in their order.
    promised: VecDeque<Promise>,
    /// Responses under way.
    running: HashMap<Box<str>, Running>,
    /// Tokens of the conversation when it was last counted by the provider.
    known: u64,
    /// What was added to it since.
    since: Added,
    /// The session's terms were told once.
    begun: bool,
    /// The output cap of responses that bring none, or the larger one while it is being changed.
    cap: Cap,
    formats: (AudioFormat, AudioFormat),
    /// The suspensions that have been looked at.
    suspensions: u64,
    events_told: u64,
    _place: Place,
}

/// A response that was asked for.
struct Promise {
    ready: Ready,
    entered: Option<Entered>,
    /// What its caller calls the event.
    event: Option<Box<str>>,
}

/// A response under way.
struct Running {
    held: Box<Held>,
    /// Nobody told the upstream a cap, so only the price book says how long it may be.
    is_capped: bool,
    /// What the conversation had beyond its known tokens when it began.
    before: Added,
    /// What it will probably be charged for its prompt.
    input: Usage,
    text_bytes: u64,
    audio_bytes: u64,
}

/// What was said and not yet counted by the provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Added {
    text_bytes: u64,
    audio_bytes: u64,
}

/// Why a session ends.
struct End {
    ending: Ending,
    code: CloseCode,
    /// What its caller is told, if they are there.
    error: Option<(&'static str, &'static str, String)>,
}

/// What becomes of a caller's event.
enum Verdict {
    /// It goes to the upstream, perhaps in other words.
    Pass(Option<String>),
    /// It does not, and its caller is told why.
    Tell(String),
}

impl Session {
    pub(super) fn new(
        gateway: Arc<Gateway>,
        reserve: Reserve,
        first: Ready,
        socket: Box<Socket>,
        renew: Renew,
        place: Place,
    ) -> Self {
        let suspensions = gateway.suspensions();
        Self {
            gateway,
            reserve,
            renew,
            socket: Some(socket),
            ready: Some(first),
            promised: VecDeque::new(),
            running: HashMap::new(),
            known: 0,
            since: Added::default(),
            begun: false,
            cap: Cap::Model,
            formats: (AudioFormat::G711, AudioFormat::G711),
            suspensions,
            events_told: 0,
            _place: place,
        }
    }

    /// Serves the session to its end.
    pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(mut self, mut client: WebSocketStream<S>) {
        let Some(mut upstream) = self.socket.take() else { return };
        let started = Instant::now();
        let (mut heard_client, mut heard_upstream, mut asked) = (started, started, started);
        let mut pinged = started;
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            let step = tokio::select! {
                message = client.next() => {
                    heard_client = Instant::now();
                    match text_of_client(message) {
                        Ok(None) => Ok(()),
                        Ok(Some(text)) => {
                            asked = heard_client;
                            self.take_client(text, &mut client, &mut upstream).await
                        }
                        Err(end) => Err(end),
                    }
                }
                message = upstream.next() => {
                    heard_upstream = Instant::now();
                    match text_of_upstream(message) {
                        Ok(None) => Ok(()),
                        Ok(Some(text)) => self.take_upstream(text, &mut client, &mut upstream).await,
                        Err(end) => Err(end),
                    }
                }
                _ = ticks.tick() => {
                    let now = Instant::now();
                    if now - pinged >= PING_EVERY {
                        pinged = now;
                        let (to_client, to_upstream) = tokio::join!(
                            send(&mut client, Message::Ping(Default::default())),
                            send(&mut upstream, Message::Ping(Default::default())),
                        );
                        to_client.map_err(|()| End::left()).and(to_upstream.map_err(|()| End::cut()))
                    } else if now - heard_client >= SILENCE_MAX {
                        Err(End::left())
                    } else if now - heard_upstream >= SILENCE_MAX {
                        Err(End::cut())
                    } else if now - started >= SESSION_MAX {
                        let message = "A session lasts an hour at most. Begin another one.";
                        Err(End::told(Ending::TimedOut, CloseCode::Normal, "session_expired", message))
                    } else if now - asked >= IDLE_MAX && self.running.is_empty() {
                        let message = "Nothing was sent for a long time. Begin another session.";
                        Err(End::told(Ending::TimedOut, CloseCode::Normal, "session_idle", message))
                    } else {
                        self.tick()
                    }
                }
            };
            if let Err(end) = step {
                break end;
            }
        };
        self.finish(end, client, *upstream).await;
    }

    /// Is anything overdue?
    fn tick(&mut self) -> Result<(), End> {
        let gateway = &self.gateway;
        let is_quiet = self.running.is_empty() && self.promised.is_empty();
        if gateway.is_cut() || (gateway.is_draining() && is_quiet) {
            let message = "The gateway is stopping. Begin another session in a moment.";
            return Err(End::told(Ending::Stopped, CloseCode::Restart, "gateway_stopping", message));
        }
        let suspensions = gateway.suspensions();
        let is_news = std::mem::replace(&mut self.suspensions, suspensions) != suspensions;
        let caller = self.reserve.caller();
        if is_news && gateway.is_suspended(caller.account.id) {
            let message = "The account was suspended; the session ends here.";
            return Err(End::told(Ending::Stopped, CloseCode::Policy, "account_suspended", message));
        }
        permit(caller, self.reserve.address(), gateway.clock.now()).map_err(|failure| End::of(&failure))
    }

    /// A caller's event: it goes on when what it can lead to is paid for.
    async fn take_client<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        text: Utf8Bytes,
        client: &mut WebSocketStream<S>,
        upstream: &mut Socket,
    ) -> Result<(), End> {
        let told = match self.judge(&text).await? {
            Verdict::Pass(words) => {
                let text = words.map_or(text, Utf8Bytes::from);
                return send(upstream, Message::Text(text)).await.map_err(|()| End::cut());
            }
            Verdict::Tell(error) => error,
        };
        send(client, Message::text(told)).await.map_err(|()| End::left())
    }

    async fn judge(&mut self, text: &str) -> Result<Verdict, End> {
        let event = match read_client(text) {
            Ok(event) => event,
            Err(BadRequest { message, param }) => return Ok(self.refuse("invalid_event", &message, param, None)),
        };
        let about = event.id.as_deref();
        let (mut cap, mut words) = (self.cap, None);
        match &event.asks {
            Asks::Update(update) => {
                if let Some(refusal) = self.refused_terms(update, about) {
                    return Ok(refusal);
                }
                cap = update.cap.map_or(cap, |other| larger(cap, other));
                words = update.model_at.clone().map(|at| self.with_model(text, at));
            }
            Asks::Response { .. } if self.promised.len() >= PROMISED_MAX || self.running.len() >= RUNNING_MAX => {
                let message = "Too many responses are under way in this session. Wait for one to end.";
                return Ok(self.refuse("too_many_responses", message, None, about));
            }
            Asks::Response { cap: Some(own) } => cap = larger(cap, *own),
            Asks::Response { cap: None } | Asks::Nothing => {}
        }
        let since = self.since.with(&event);
        self.ensure(since, cap).await?;
        match &event.asks {
            Asks::Response { .. } => {
                let entered = match self.reserve.enter(self.expected_input(since).input_tokens(), cap).await {
                    Ok(entered) => entered,
                    Err(failure) if is_about_rates(&failure) => {
                        return Ok(self.refuse("rate_limit_exceeded", &failure.message, None, about));
                    }
                    Err(failure) => return Err(End::of(&failure)),
                };
                let Some(ready) = self.ready.take() else { return Err(End::fault()) };
                self.promised.push_back(Promise { ready, entered, event: about.map(Box::from) });
            }
            // Until the upstream tells what holds, whatever costs more does.
            Asks::Update(update) => {
                self.cap = cap;
                if update.format == Some(AudioFormat::G711) {
                    self.formats.0 = AudioFormat::G711;
                }
            }
            Asks::Nothing => {}
        }
        self.since = since;
        Ok(Verdict::Pass(words))
    }

    /// What of other terms cannot be had: what is priced must be what answers.
    fn refused_terms(&mut self, update: &Update<'_>, about: Option<&str>) -> Option<Verdict> {
        let route = self.reserve.route();
        if let Some(model) = &update.model
            && **model != *route.model
            && **model != *route.upstream_model
        {
            let message =
                format!("This session is with \"{}\"; another model needs a session of its own.", route.model);
            return Some(self.refuse("model_not_allowed", &message, Some("session.model"), about));
        }
        if update.transcription.is_some() {
            let message = "Transcription of what is said is not served in sessions: another model does it, at another \
                           price. Leave it out.";
            return Some(self.refuse(
                "transcription_not_served",
                message,
                Some("session.audio.input.transcription"),
                about,
            ));
        }
        None
    }

    /// An event with the name by which the upstream knows the model.
    fn with_model(&self, text: &str, at: std::ops::Range<usize>) -> String {
        let name = serde_json::Value::from(&*self.reserve.route().upstream_model).to_string();
        [&text[..at.start], &name, &text[at.end..]].concat()
    }

    fn refuse(&mut self, code: &str, message: &str, param: Option<&str>, about: Option<&str>) -> Verdict {
        let kind = if code == "rate_limit_exceeded" { "rate_limit_error" } else { "invalid_request_error" };
        let id = self.next_event_id();
        Verdict::Tell(error_event(&id, kind, code, message, param, about))
    }

    fn next_event_id(&mut self) -> String {
        self.events_told += 1;
        format!("event_tollgate_{}", self.events_told)
    }

    /// Holds what the next response can cost after `since` was said, if that is not held yet.
    async fn ensure(&mut self, since: Added, cap: Cap) -> Result<(), End> {
        // What is being said will be read by the next response.
        let running: u64 = self.running.values().map(|running| running.held.bound().output_tokens()).sum();
        let promised = self.promised.len() as u64 * self.reserve.output_max(self.cap);
        let audio = self.formats.0.input_tokens(since.audio_bytes);
        let input = self.known.saturating_add(since.text_bytes + audio + running + promised);
        let output = self.reserve.output_max(cap);
        if self.ready.as_ref().is_some_and(|ready| ready.covers(self.reserve.input_max(input), output)) {
            return Ok(());
        }
        if self.gateway.is_draining() {
            let message = "The gateway is stopping. Begin another session in a moment.";
            return Err(End::told(Ending::Stopped, CloseCode::Restart, "gateway_stopping", message));
        }
        // Who may no longer ask gets no hold.
        let caller = (self.renew)().await.map_err(|failure| End::of(&failure))?;
        self.reserve.renew(&caller);
        let ready = self.reserve.hold(Need { input, cap }, self.ready.take()).await;
        self.ready = Some(ready.map_err(|failure| End::of(&failure))?);
        Ok(())
    }

    /// What a prompt will probably be charged for.
    fn expected_input(&self, since: Added) -> Usage {
        let mut usage = Usage::NOTHING;
        usage[Meter::Input] = self.known + since.text_bytes.div_ceil(4);
        usage[Meter::InputAudio] = self.formats.0.input_tokens(since.audio_bytes);
        usage
    }

    /// An upstream's event: what it costs is booked before it goes on.
    async fn take_upstream<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        text: Utf8Bytes,
        client: &mut WebSocketStream<S>,
        upstream: &mut Socket,
    ) -> Result<(), End> {
        let event = read_server(&text).map_err(|_| {
            let message = "The upstream sent something that cannot be read; the session ends here.";
            End::told(Ending::UpstreamMalformed, CloseCode::Error, "upstream_malformed", message)
        })?;
        match event {
            ServerEvent::Session(terms) => {
                // Later changes were counted when they were asked for.
                if !std::mem::replace(&mut self.begun, true) {
                    self.since.text_bytes += terms.text_bytes;
                }
                (self.cap, self.formats) = (terms.cap, (terms.input, terms.output));
            }
            ServerEvent::Begun { response } => self.begin(&response, client, upstream).await?,
            ServerEvent::Delta { response, text_bytes, audio_bytes } => {
                let format = self.formats.1;
                if let Some(running) = self.running.get_mut(&*response) {
                    running.text_bytes += text_bytes;
                    running.audio_bytes += audio_bytes;
                    running.mark(format);
                }
            }
            ServerEvent::Done { response, usage, is_kept } => {
                self.end_response(&response, &usage, is_kept, Ending::Complete)
            }
            ServerEvent::Failed { event } => self.unpromise(event.as_deref()),
            ServerEvent::Transcribed { .. } => {
                let upstream = &self.reserve.route().upstream.name;
                tracing::warn!(%upstream, "an upstream transcribed what nobody asked it to; that is not charged");
            }
            ServerEvent::Other => {}
        }
        send(client, Message::Text(text)).await.map_err(|()| End::left())
    }

    /// A response has begun: it takes a hold over.
    async fn begin<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        response: &str,
        client: &mut WebSocketStream<S>,
        upstream: &mut Socket,
    ) -> Result<(), End> {
        let (ready, entered) = match self.promised.pop_front() {
            Some(Promise { ready, entered, .. }) => (ready, entered),
            None => {
                // Its caller's voice has brought it about, or a long silence, before which nothing was asked.
                if self.ready.is_none()
                    && let Err(end) = self.ensure(self.since, self.cap).await
                {
                    stop(upstream, response).await?;
                    return Err(end);
                }
                let Some(ready) = self.ready.take() else { return Err(End::fault()) };
                let expected = self.expected_input(self.since).input_tokens();
                let entered = match self.reserve.enter(expected, self.cap).await {
                    Ok(entered) => entered,
                    // It has begun; it is stopped, and pays for what it consumed by then.
                    Err(failure) if is_about_rates(&failure) => {
                        stop(upstream, response).await?;
                        let refusal = self.refuse("rate_limit_exceeded", &failure.message, None, None);
                        if let Verdict::Tell(error) = refusal {
                            send(client, Message::text(error)).await.map_err(|()| End::left())?;
                        }
                        None
                    }
                    Err(failure) => return Err(End::of(&failure)),
                };
                (ready, entered)
            }
        };
        let held = ready.into_held().within_limits(entered, 1);
        held.durable().await.map_err(|error| End::of(&crate::admit::store_unavailable(error.to_string())))?;
        if self.running.len() >= RUNNING_MAX || self.running.contains_key(response) {
            let message = "The upstream began more responses than a session may have; it ends here.";
            return Err(End::told(Ending::UpstreamMalformed, CloseCode::Error, "upstream_malformed", message));
        }
        let is_capped = matches!(self.cap, Cap::Tokens(_));
        let input = self.expected_input(self.since);
        let running = Running { held, is_capped, before: self.since, input, text_bytes: 0, audio_bytes: 0 };
        self.running.insert(response.into(), running);
        Ok(())
    }

    /// A response has ended: it is settled, and the conversation is as long as it tells.
    fn end_response(&mut self, response: &str, usage: &Reported, is_kept: bool, ending: Ending) {
        let Some(running) = self.running.remove(response) else {
            tracing::warn!(upstream = %self.reserve.route().upstream.name, "a response ended that never began");
            return;
        };
        let (before, text_bytes, audio_bytes) = (running.before, running.text_bytes, running.audio_bytes);
        let settled = running.settle(Some(usage), self.formats.1, ending);
        match settled {
            Some(usage) => {
                self.reserve.learn(&usage);
                if is_kept {
                    self.known = usage.total_tokens();
                    self.since = self.since.without(before);
                }
            }
            // What it said is read all the same.
            None => {
                self.since.text_bytes += text_bytes;
                self.known += self.formats.1.output_tokens(audio_bytes);
            }
        }
    }

    /// The upstream refused an event: if that asked for a response, none will come.
    fn unpromise(&mut self, event: Option<&str>) {
        // One that has no name is about the latest that has none.
        let place = self.promised.iter().rposition(|promise| promise.event.as_deref() == event);
        let Some(Promise { ready, entered, .. }) = place.and_then(|place| self.promised.remove(place)) else { return };
        if let Some(entered) = entered {
            entered.cancel(self.gateway.clock.now());
        }
        if self.ready.is_none() {
            self.ready = Some(ready);
        } else {
            ready.release(Ending::UpstreamError);
        }
    }

    /// The end: everybody is told, what is under way is stopped, and everything is settled.
    async fn finish<S: AsyncRead + AsyncWrite + Unpin>(
        mut self,
        end: End,
        mut client: WebSocketStream<S>,
        mut upstream: Socket,
    ) {
        let End { ending, code, error } = end;
        if let Some((kind, name, message)) = error {
            let event = error_event(&self.next_event_id(), kind, name, &message, None, None);
            // Who does not read it by now is gone.
            let _ = timeout(LAST_WORDS, client.send(Message::text(event))).await;
            let _ = timeout(LAST_WORDS, client.close(Some(CloseFrame { code, reason: name.into() }))).await;
        }
        if ending != Ending::UpstreamCut {
            let _ = timeout(LAST_WORDS, self.last_words(&mut upstream, ending)).await;
        }
        let format = self.formats.1;
        for (_, running) in self.running.drain() {
            running.settle(None, format, ending);
        }
        let now = self.gateway.clock.now();
        for Promise { ready, entered, .. } in self.promised.drain(..) {
            if let Some(entered) = entered {
                entered.cancel(now);
            }
            ready.release(ending);
        }
        if let Some(ready) = self.ready.take() {
            ready.release(ending);
        }
        let _ = timeout(LAST_WORDS, upstream.close(None)).await;
        // A connection that is closed with something unread loses what was written last.
        let _ = timeout(LAST_WORDS, async { while let Some(Ok(_)) = client.next().await {} }).await;
    }

    /// Stops what is under way, and hears what it has consumed.
    async fn last_words(&mut self, upstream: &mut Socket, ending: Ending) {
        for response in self.running.keys().cloned().collect::<Vec<_>>() {
            if stop(upstream, &response).await.is_err() {
                return;
            }
        }
        while !self.running.is_empty() {
            let Ok(text) = text_of_upstream(upstream.next().await) else { return };
            let Some(text) = text else { continue };
            if let Ok(ServerEvent::Done { response, usage, is_kept }) = read_server(&text) {
                self.end_response(&response, &usage, is_kept, ending);
            }
        }
    }
}

impl Running {
    /// What it has consumed by what was seen of it.
    fn estimate(&self, format: AudioFormat) -> Usage {
        let mut usage = self.input;
        usage[Meter::Output] = self.text_bytes.div_ceil(4);
        usage[Meter::OutputAudio] = format.output_tokens(self.audio_bytes);
        let bound = self.held.bound();
        usage.with_input_at_most(bound.input_tokens()).with_output_at_most(bound.output_tokens())
    }

    fn produced_anything(&self) -> bool {
        self.text_bytes + self.audio_bytes > 0
    }

    /// Notes how far it has come, for a restart after a crash.
    fn mark(&mut self, format: AudioFormat) {
        let usage = self.estimate(format);
        self.held.progress(Mark { usage, estimated: true, service_tier: None });
    }

    /// Charges what was reported, where that can be, or what was seen. `None`: nobody told what the prompt came to.
    fn settle(self, reported: Option<&Reported>, format: AudioFormat, ending: Ending) -> Option<Usage> {
        let bound = self.held.bound();
        let output_most = bound.output_tokens().saturating_add(if self.is_capped { 0 } else { OUTPUT_ADDED_MAX });
        let input_most = bound.input_tokens().saturating_add(PROMPT_ADDED_MAX);
        let usage = reported.and_then(Reported::usage).copied();
        let usage = usage.filter(|usage| {
            let is_plausible = usage.input_tokens() <= input_most && usage.output_tokens() <= output_most;
            // Zeros are believed only where nothing was produced (U-23).
            let is_whole = usage.input_tokens() > 0 && usage.output_tokens() > 0;
            is_plausible && (is_whole || !self.produced_anything())
        });
        match usage {
            Some(usage) => {
                self.held.settle(usage, None, false, ending);
                Some(usage)
            }
            None if self.produced_anything() => {
                let usage = self.estimate(format);
                self.held.settle(usage, None, true, ending);
                None
            }
            None => {
                self.held.void(if ending == Ending::Complete { Ending::UpstreamError } else { ending });
                None
            }
        }
    }
}

impl Added {
    fn with(self, event: &ClientEvent<'_>) -> Self {
        Self {
            text_bytes: self.text_bytes.saturating_add(event.text_bytes),
            audio_bytes: self.audio_bytes.saturating_add(event.audio_bytes),
        }
    }

    fn without(self, before: Self) -> Self {
        Self {
            text_bytes: self.text_bytes.saturating_sub(before.text_bytes),
            audio_bytes: self.audio_bytes.saturating_sub(before.audio_bytes),
        }
    }
}

impl End {
    fn told(ending: Ending, code: CloseCode, name: &'static str, message: impl Into<String>) -> Self {
        let kind = if code == CloseCode::Policy { "invalid_request_error" } else { "server_error" };
        Self { ending, code, error: Some((kind, name, message.into())) }
    }

    /// The caller left.
    fn left() -> Self {
        Self { ending: Ending::ClientLeft, code: CloseCode::Normal, error: None }
    }

    /// The upstream left.
    fn cut() -> Self {
        let message = "The upstream broke off; the session ends here.";
        Self::told(Ending::UpstreamCut, CloseCode::Error, "upstream_cut", message)
    }

    fn fault() -> Self {
        let message = "The gateway failed on this session. Its log says more.";
        Self::told(Ending::GatewayFault, CloseCode::Error, "internal_error", message)
    }

    /// No response can be paid for any more, or the caller may not ask any more.
    fn of(failure: &Failure) -> Self {
        let detail = failure.detail.as_deref().unwrap_or("-");
        tracing::debug!(case = failure.case.name(), detail, "a session ends");
        let (ending, code, kind, name) = match (&failure.case, failure.case.fault()) {
            (Case::QuotaExceeded { .. } | Case::ExceedsLimit { .. }, _) => {
                (Ending::FundsExhausted, CloseCode::Policy, "insufficient_quota", "insufficient_quota")
            }
            (case, Fault::Caller) => (Ending::Stopped, CloseCode::Policy, "invalid_request_error", case.name()),
            (case, _) => (Ending::Stopped, CloseCode::Again, "server_error", case.name()),
        };
        Self { ending, code, error: Some((kind, name, failure.message.clone())) }
    }
}

/// It is a matter of time: the session goes on without this response.
fn is_about_rates(failure: &Failure) -> bool {
    matches!(failure.case, Case::RateLimited { .. } | Case::ExceedsLimit { .. })
}

async fn stop(upstream: &mut Socket, response: &str) -> Result<(), End> {
    let event = serde_json::json!({"type": "response.cancel", "response_id": response}).to_string();
    send(upstream, Message::text(event)).await.map_err(|()| End::cut())
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>, message: Message) -> Result<(), ()> {
    match timeout(WRITE_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}

/// The text of what a caller sent, if it is one.
fn text_of_client(message: Option<Result<Message, Error>>) -> Result<Option<Utf8Bytes>, End> {
    match message {
        Some(Ok(Message::Text(text))) => Ok(Some(text)),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
        Some(Ok(Message::Binary(_))) => {
            let message = "Events are texts in JSON, not bytes.";
            Err(End::told(Ending::ClientLeft, CloseCode::Unsupported, "invalid_event", message))
        }
        Some(Err(Error::Capacity(_))) => {
            let message = "The event is larger than this gateway takes.";
            Err(End::told(Ending::ClientLeft, CloseCode::Size, "event_too_large", message))
        }
        Some(Ok(Message::Close(_)) | Err(_)) | None => Err(End::left()),
    }
}

/// The text of what an upstream sent, if it is one.
fn text_of_upstream(message: Option<Result<Message, Error>>) -> Result<Option<Utf8Bytes>, End> {
    match message {
        Some(Ok(Message::Text(text))) => Ok(Some(text)),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
        Some(Ok(Message::Binary(_) | Message::Close(_)) | Err(_)) | None => Err(End::cut()),
    }
}
