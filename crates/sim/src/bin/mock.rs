//! The mock upstream as a program: `mock --listen 127.0.0.1:0 [--key K] [--model NAME …]`.

use clap::Parser;
use sim::mock::{Mock, Options};
use std::io::Write as _;
use std::net::SocketAddr;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A scripted upstream that speaks as OpenAI, Anthropic and Google do.
#[derive(Parser)]
struct Arguments {
    /// Where to listen; port 0 lets the system choose.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// The key that callers must present; any when left out.
    #[arg(long)]
    key: Option<String>,
    /// Models to list; requests may name any.
    #[arg(long = "model", default_value = "mock-model")]
    models: Vec<String>,
}

// One thread is what the mock needs, and what the benchmark grants it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let Arguments { listen, key, models } = Arguments::parse();
    let mock = Mock::start_with(Options { listen, key, models })?;
    println!("mock listening on {}", mock.url());
    std::io::stdout().flush()?;
    mock.run().await;
    Ok(())
}
