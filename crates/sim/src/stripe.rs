//! A scripted Stripe.
//!
//! It follows Stripe's published API in the part that a gateway uses: form-encoded requests with brackets, JSON objects,
//! lists and errors, keys that make requests idempotent, versions and request ids, events and their signed delivery.
//! What people and banks do, a test does: the customer completes a session, a bank disputes a charge, an event is
//! delivered twice. All of that is on [`Stripe`], and over HTTP below `/_control` for those who are no Rust.
//!
//! Nothing happens by itself: time passes only in timestamps, events wait until they are delivered (unless a webhook is
//! configured), sessions do not expire unless told to.

mod deliver;
mod form;
mod objects;
mod serve;
mod world;

pub use deliver::{Delivered, Fault, sign};
pub use world::{Asked, NextCharge};

use deliver::Webhook;
use parking_lot::Mutex;
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use world::World;

/// How a Stripe is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The secret key. `sk_live_…` makes everything live.
    pub secret_key: String,
    /// The secret that deliveries are signed with.
    pub webhook_secret: String,
    /// Where every event is delivered as it happens; nowhere when absent.
    pub webhook_url: Option<String>,
}

/// A running Stripe. Dropping it closes the listener and every connection.
#[derive(Debug)]
pub struct Stripe {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

/// What the connections of one Stripe share.
#[derive(Debug)]
struct Shared {
    options: Options,
    world: Mutex<World>,
    /// Ids of events for the delivery task.
    happened: mpsc::UnboundedSender<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            secret_key: "sk_test_simulated".to_owned(),
            webhook_secret: "whsec_simulated".to_owned(),
            webhook_url: None,
        }
    }
}

impl Stripe {
    /// Starts a Stripe on a free loopback port, as a task of the current runtime.
    pub fn start() -> io::Result<Self> {
        Self::start_with(Options::default())
    }

    /// Starts a Stripe as a task of the current runtime.
    pub fn start_with(options: Options) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(options.listen)?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let address = listener.local_addr()?;
        let (happened, events) = mpsc::unbounded_channel();
        let world = World::new(format!("http://{address}"), options.secret_key.starts_with("sk_live_"));
        let webhook = options.webhook_url.clone();
        let shared = Arc::new(Shared { options, world: Mutex::new(world), happened });
        let mut tasks = vec![tokio::spawn(serve::accept(listener, shared.clone()))];
        if let Some(url) = webhook {
            tasks.push(tokio::spawn(deliver::deliver_all(shared.clone(), url, events)));
        }
        Ok(Self { address, shared, tasks })
    }

    /// `http://ADDRESS`: what a client calls Stripe's base address.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The secret key that it asks for.
    pub fn secret_key(&self) -> &str {
        &self.shared.options.secret_key
    }

    /// The secret that it signs with.
    pub fn webhook_secret(&self) -> &str {
        &self.shared.options.webhook_secret
    }

    /// The customer completes a session and pays (or saves a card, in mode `setup`).
    pub fn complete(&self, session: &str) {
        self.change(|world| world.complete(session, false));
    }

    /// The customer completes a session, but the money is under way and may still fail.
    pub fn complete_later(&self, session: &str) {
        self.change(|world| world.complete(session, true));
    }

    /// The money of a session that was completed arrives.
    pub fn arrive(&self, session: &str) {
        self.change(|world| world.end_async(session, true));
    }

    /// It does not.
    pub fn fail(&self, session: &str) {
        self.change(|world| world.end_async(session, false));
    }

    /// A session's time is over.
    pub fn expire(&self, session: &str) {
        self.change(|world| world.expire(session));
    }

    /// A charge of a saved card that stayed `processing` ends.
    pub fn end_charge(&self, payment_intent: &str, succeeds: bool) {
        self.change(|world| world.end_intent(payment_intent, succeeds));
    }

    /// Somebody refunds at Stripe's own pages. Returns the refund's id.
    pub fn refund(&self, payment_intent: &str, amount: i64) -> String {
        let refund = self.change(|world| world.refund(payment_intent, Some(amount), "succeeded"));
        id_of(&refund)
    }

    /// [`Stripe::refund`], but the refund is pending.
    pub fn refund_later(&self, payment_intent: &str, amount: i64) -> String {
        let refund = self.change(|world| world.refund(payment_intent, Some(amount), "pending"));
        id_of(&refund)
    }

    /// A refund ends: `succeeded`, `failed` or `canceled`.
    pub fn end_refund(&self, refund: &str, status: &str) {
        self.change(|world| world.end_refund(refund, status));
    }

    /// A bank disputes a payment and takes the money. Returns the dispute's id.
    pub fn dispute(&self, payment_intent: &str, amount: i64) -> String {
        id_of(&self.change(|world| world.dispute(payment_intent, amount, false)))
    }

    /// A bank asks about a payment, and takes nothing yet.
    pub fn inquire(&self, payment_intent: &str, amount: i64) -> String {
        id_of(&self.change(|world| world.dispute(payment_intent, amount, true)))
    }

    /// A dispute advances: `needs_response`, `under_review`, `won`, `lost`, `warning_closed`.
    pub fn advance_dispute(&self, dispute: &str, status: &str) {
        self.change(|world| world.advance_dispute(dispute, status));
    }

    /// How the next charges of saved cards go, in order; after them, charges succeed.
    pub fn next_charges(&self, outcomes: impl IntoIterator<Item = NextCharge>) {
        self.shared.world.lock().next_charges.extend(outcomes);
    }

    /// What it was asked, in order.
    pub fn asked(&self) -> Vec<Asked> {
        self.shared.world.lock().asked.clone()
    }

    /// Every event so far, in order.
    pub fn events(&self) -> Vec<Value> {
        self.shared.world.lock().events.clone()
    }

    /// The last event of a type.
    pub fn last_event(&self, kind: &str) -> Value {
        let events = self.events();
        let last = events.into_iter().rev().find(|event| event["type"] == kind);
        last.unwrap_or_else(|| panic!("no event of type {kind} has happened"))
    }

    /// An object by its id, as `GET` would answer.
    pub fn object(&self, id: &str) -> Value {
        self.shared.world.lock().find(id).unwrap_or_else(|| panic!("there is no object {id}"))
    }

    /// Delivers an event to an address, correctly signed.
    pub async fn deliver(&self, event: &Value, url: &str) -> io::Result<Delivered> {
        self.deliver_with(event, url, Fault::None).await
    }

    /// Delivers an event with a fault.
    pub async fn deliver_with(&self, event: &Value, url: &str, fault: Fault) -> io::Result<Delivered> {
        Webhook::new(url, self.webhook_secret()).deliver(event, fault).await
    }

    /// Serves until the task is dropped.
    pub async fn run(mut self) {
        // The task ends only with its runtime.
        let _ = (&mut self.tasks[0]).await;
    }

    fn change(&self, change: impl FnOnce(&mut World) -> Result<Value, Box<world::ApiError>>) -> Value {
        self.shared.change(change).unwrap_or_else(|error| panic!("Stripe refuses: {}", error.message))
    }
}

impl Shared {
    /// Changes the world and hands what happened to the delivery task.
    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.world.lock();
        let before = world.events.len();
        let answer = change(&mut world);
        for event in &world.events[before..] {
            // Without a webhook nobody receives.
            let _ = self.happened.send(id_of(event));
        }
        answer
    }
}

impl Drop for Stripe {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn id_of(object: &Value) -> String {
    object["id"].as_str().expect("every object has an id").to_owned()
}

#[cfg(test)]
mod tests;
