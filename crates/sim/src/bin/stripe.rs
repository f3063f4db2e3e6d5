//! The scripted Stripe as a program: `stripe --listen 127.0.0.1:0 [--webhook-url URL] …`.

use clap::Parser;
use sim::stripe::{Options, Stripe};
use std::io::Write as _;
use std::net::SocketAddr;

/// A scripted Stripe.
#[derive(Parser)]
struct Arguments {
    /// Where to listen; port 0 lets the system choose.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The secret key that clients must present.
    #[arg(long, default_value = "sk_test_simulated")]
    secret_key: String,
    /// The secret that events are signed with.
    #[arg(long, default_value = "whsec_simulated")]
    webhook_secret: String,
    /// Where every event is delivered as it happens; nowhere when left out.
    #[arg(long)]
    webhook_url: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Arguments { listen, secret_key, webhook_secret, webhook_url } = Arguments::parse();
    let stripe = Stripe::start_with(Options { listen, secret_key, webhook_secret, webhook_url })?;
    println!("stripe listening on {}", stripe.url());
    std::io::stdout().flush()?;
    stripe.run().await;
    Ok(())
}
