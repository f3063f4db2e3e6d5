//! stub
use clap::Parser;
/// x
#[derive(Parser)]
pub struct Cli {
    #[command(subcommand)]
    pub c: C,
}
/// x
#[derive(clap::Subcommand)]
pub enum C {
    /// x
    Serve(ServeArgs),
}
/// x
#[derive(clap::Args)]
pub struct ServeArgs {
    #[arg(long, default_value = "tollgate-data")]
    pub data_dir: std::path::PathBuf,
    #[arg(long)]
    pub listen: Option<String>,
    #[arg(long)]
    pub config: Option<std::path::PathBuf>,
}
/// x
pub async fn run(c: Cli) -> anyhow::Result<std::process::ExitCode> {
    let C::Serve(a) = c.c;
    crate::serve::run(a).await?;
    Ok(std::process::ExitCode::SUCCESS)
}
