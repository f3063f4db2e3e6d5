//! What one does with this repository beside editing it: `cargo xtask COMMAND`.
//!
//! It imports no crate of the workspace, so that it builds in seconds on a fresh clone.

mod bench;
mod prices;
mod run;
mod sim;
mod test;
mod tidy;
mod workspace;

use anyhow::{Result, bail};
use std::env;
use std::process::ExitCode;

const HELP: &str = "\
Usage: cargo xtask COMMAND

  run [ARGS]       build the gateway and start it: `tollgate serve ARGS`
  test [--deep]    the whole check: formats, lints, docs, rules, tests, simulation, SDKs
  tidy             the project's own rules: crate arrows, dependencies, habits
  sim [ARGS]       the simulation, such as `--seeds 1000`
  bench [ARGS]     the gateway against a bare pass-through
  prices [--source PATH] [--check]
                   convert LiteLLM's price file into the shipped price book, or compare them
  help             this text
";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<()> {
    let (command, args) = args.split_first().map_or(("help", args), |(command, args)| (command.as_str(), args));
    // `cargo xtask run -- --listen …` is what the fingers know from cargo.
    let args = args.strip_prefix(&["--".to_owned()]).unwrap_or(args);
    match command {
        "run" => run::run(args),
        "test" => test::run(args),
        "tidy" => tidy::run(args),
        "sim" => sim::run(args),
        "bench" => bench::run(args),
        "prices" => prices::run(args),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        unknown => bail!("unknown command {unknown:?}: `cargo xtask help` lists them"),
    }
}
