//! The command line: `tollgate serve`, and everything an operator does from a terminal.
//!
//! Every command but `serve`, `bench` and `diagnose` is a call of the operator's API. [`client`] finds the gateway: a remote one
//! by its address, a running one by the socket in its data directory, or none, and then the directory is opened
//! here. The commands cannot tell which it was.

mod account;
mod audit;
mod bench;
mod budget;
mod client;
mod code;
mod diagnose;
mod grant;
mod key;
mod ledger;
mod limit;
mod member;
mod operator;
mod order;
mod output;
mod plan;
mod price;
mod project;
mod scope;
mod statement;
mod subscription;
mod tier;
mod usage;
mod user;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use client::{Client, Target};
use output::Format;
use std::path::PathBuf;
use std::process::ExitCode;
use store::sql::PostgresUrl;

/// Where the data are if nobody says.
const DATA_DIR: &str = "./tollgate-data";

/// An LLM API gateway with exact, durable billing.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Globals {
    /// The data directory: database, keys, sockets. Visible and in one place on purpose: to be rid of everything,
    /// remove it.
    /// [default: ./tollgate-data]
    // Not a default of clap's: with that, every usage line would name the option as if it were required.
    #[arg(long, global = true, value_name = "DIR", env = "TOLLGATE_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// A PostgreSQL database in place of the data directory's own, as postgres://USER:PASSWORD@HOST/NAME. Better in the
    /// environment, where other users of the machine do not see it. The data directory keeps the rest.
    #[arg(long, global = true, value_name = "URL", env = "TOLLGATE_DATABASE", hide_env_values = true)]
    database: Option<Credential>,
    /// Talk to the gateway at this address instead of the one of the data directory. Needs an operator's key.
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// The operator's key for --url. Better in the environment, where other users of the machine do not see it.
    #[arg(long, global = true, value_name = "KEY", env = "TOLLGATE_OPERATOR_KEY", hide_env_values = true)]
    operator_key: Option<String>,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
}

/// A text with a credential in it: never printed, also not by a mistake in it.
#[derive(Clone)]
pub struct Credential(String);

impl Credential {
    /// The text, unless it is empty.
    pub fn text(&self) -> Option<&str> {
        Some(&*self.0).filter(|text| !text.is_empty())
    }
}

impl std::str::FromStr for Credential {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential")
    }
}

impl Globals {
    fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| PathBuf::from(DATA_DIR))
    }

    /// The PostgreSQL database, if one is named. One that makes no sense is a mistake in the command: exit code 2.
    fn postgres(&self) -> Result<Option<PostgresUrl>, clap::Error> {
        let parsed = self.database.as_ref().filter(|url| !url.0.is_empty()).map(|url| PostgresUrl::parse(&url.0));
        parsed
            .transpose()
            .map_err(|error| Cli::command().error(ErrorKind::ValueValidation, format!("--database: {error}")))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Serve(ServeArgs),
    /// Accounts: who pays.
    #[command(subcommand)]
    Account(account::AccountCommand),
    /// Put money into an account: `account top-up`.
    #[command(name = "topup")]
    TopUp(account::TopUpArgs),
    /// Plans: what accounts can subscribe to.
    #[command(subcommand)]
    Plan(plan::PlanCommand),
    /// Subscriptions: what an account has subscribed to.
    #[command(subcommand)]
    Subscription(subscription::SubscriptionCommand),
    /// Grants: promotional credit that expires.
    #[command(subcommand)]
    Grant(grant::GrantCommand),
    /// Redemption codes: credit for whoever presents one.
    #[command(subcommand)]
    Code(code::CodeCommand),
    /// Budgets: caps on what a scope of an account may use up.
    #[command(subcommand)]
    Budget(budget::BudgetCommand),
    /// Limits: how much of something may be used in a time.
    #[command(subcommand)]
    Limit(limit::LimitCommand),
    /// Tiers: what accounts are promoted to by what they pay.
    #[command(subcommand)]
    Tier(tier::TierCommand),
    /// What an account had, what happened, what it has.
    Statement(statement::StatementArgs),
    /// Projects: groups of an account's keys.
    #[command(subcommand)]
    Project(project::ProjectCommand),
    /// Keys: what callers present.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Users: the people who sign in.
    #[command(subcommand)]
    User(user::UserCommand),
    /// Members: which user is what in an account.
    #[command(subcommand)]
    Member(member::MemberCommand),
    /// Operators: who runs the gateway.
    #[command(subcommand)]
    Operator(operator::OperatorCommand),
    /// Orders: what accounts pay by card.
    #[command(subcommand)]
    Order(order::OrderCommand),
    /// Prices: what models cost.
    #[command(subcommand)]
    Price(price::PriceCommand),
    /// What was used, by day and model.
    Usage(usage::UsageArgs),
    /// Who did what, beside money; newest first.
    Audit(audit::AuditArgs),
    /// The ledger.
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// What a provider's answer means: why it failed, when it is over, what to do. Needs no gateway.
    Diagnose(diagnose::DiagnoseArgs),
    /// Measure this machine.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

/// How to run the gateway.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// The data directory, from the global option.
    #[arg(skip)]
    pub data_dir: PathBuf,
    /// The PostgreSQL database, from the global option.
    #[arg(skip)]
    pub database: Option<PostgresUrl>,
    /// The address to listen on; port 0 lets the system choose [default: the file's, or 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// A Redis server that counts limits for all nodes, as redis://USER:PASSWORD@HOST:PORT. Better in the environment.
    #[arg(long, value_name = "URL", env = "TOLLGATE_REDIS", hide_env_values = true)]
    pub redis: Option<Credential>,
    /// The configuration file. Everything has a default.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Does what the command line says. An error is for `main` to print; it stands for exit code 1.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { globals, command } = cli;
    let format = if globals.json { Format::Json } else { Format::Table };
    match command {
        Command::Serve(args) => {
            let database = globals.postgres().unwrap_or_else(|error| error.exit());
            if let Some(Err(why)) = args.redis.as_ref().and_then(Credential::text).map(crate::config::redis::check_url)
            {
                Cli::command().error(ErrorKind::ValueValidation, format!("--redis: {why}")).exit();
            }
            crate::serve::run(ServeArgs { data_dir: globals.data_dir(), database, ..args }).await?;
        }
        Command::Diagnose(args) => diagnose::run(&args, format)?,
        Command::Bench(command) => {
            let database = globals.postgres().unwrap_or_else(|error| error.exit());
            bench::run(command, &globals.data_dir(), database, format).await?;
        }
        command => {
            let target = target(&globals).unwrap_or_else(|error| error.exit());
            let client = Client::connect(target, command.may_create()).await?;
            let outcome = operate(command, &client, format).await;
            client.close().await?;
            return outcome;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn operate(command: Command, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    match command {
        Command::Account(command) => account::run(command, client, format).await?,
        Command::TopUp(args) => account::top_up(args, client, format).await?,
        Command::Plan(command) => plan::run(command, client, format).await?,
        Command::Subscription(command) => subscription::run(command, client, format).await?,
        Command::Grant(command) => grant::run(command, client, format).await?,
        Command::Code(command) => code::run(command, client, format).await?,
        Command::Budget(command) => budget::run(command, client, format).await?,
        Command::Limit(command) => limit::run(command, client, format).await?,
        Command::Tier(command) => tier::run(command, client, format).await?,
        Command::Statement(args) => statement::run(args, client, format).await?,
        Command::Project(command) => project::run(command, client, format).await?,
        Command::Key(command) => key::run(command, client, format).await?,
        Command::User(command) => user::run(command, client, format).await?,
        Command::Member(command) => member::run(command, client, format).await?,
        Command::Operator(command) => operator::run(command, client, format).await?,
        Command::Order(command) => order::run(command, client, format).await?,
        Command::Audit(args) => audit::run(args, client, format).await?,
        Command::Price(command) => price::run(command, client, format).await?,
        Command::Usage(args) => usage::run(args, client, format).await?,
        Command::Ledger(command) => return ledger::run(command, client, format).await,
        Command::Serve(_) | Command::Bench(_) | Command::Diagnose(_) => unreachable!("run has taken them"),
    }
    Ok(ExitCode::SUCCESS)
}

impl Command {
    /// It makes sense where there is no data yet.
    fn may_create(&self) -> bool {
        matches!(self, Self::Account(account::AccountCommand::Create { .. }))
    }
}

/// A moment that is given as a time or as a date, which stands for the start of that day in UTC.
fn moment(text: &str) -> Result<jiff::Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let date = text.parse::<jiff::civil::Date>().ok().filter(|_| text.len() == "2026-11-25".len());
    let start = date.and_then(|date| date.to_zoned(jiff::tz::TimeZone::UTC).ok());
    start.map(|start| start.timestamp()).ok_or_else(|| {
        "it is a time such as 2026-11-25T08:00:00Z, or a date such as 2026-11-25, whose day begins in UTC".to_owned()
    })
}

/// Where to send commands. An address without a key is a mistake in the command: exit code 2.
fn target(globals: &Globals) -> Result<Target, clap::Error> {
    match (&globals.url, &globals.operator_key) {
        (None, _) => Ok(Target::Directory { path: globals.data_dir(), database: globals.postgres()? }),
        (Some(url), Some(key)) => Ok(Target::Remote { url: url.clone(), operator_key: key.clone() }),
        (Some(_), None) => {
            let message = "--url needs an operator's key: --operator-key KEY, or TOLLGATE_OPERATOR_KEY";
            Err(Cli::command().error(ErrorKind::MissingRequiredArgument, message))
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Runs a command that must succeed, on a data directory. Returns what it prints.
    pub async fn printed(directory: &std::path::Path, command: &[&str]) -> String {
        let directory = directory.to_str().expect("a path of plain letters");
        let line = [&["tollgate", "--data-dir", directory], command].concat();
        let before = output::tests::PRINTED.take();
        assert!(before.is_empty(), "two commands at once: {before}");
        let code = run(Cli::try_parse_from(line).expect("a command")).await.expect("it succeeds");
        let printed = output::tests::PRINTED.take();
        assert_eq!(code, ExitCode::SUCCESS, "{printed}");
        printed
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_promised_forms_are_understood() {
        for line in [
            "tollgate serve --data-dir d --listen 127.0.0.1:0 --config f.toml",
            "tollgate serve",
            "tollgate serve --database postgres://u:p@h:5433/d",
            "tollgate ledger verify --database postgres://%2Frun%2Fpg/d",
            "tollgate account create acme --balance 5.00 --data-dir d",
            "tollgate account top-up acme 5.00 --data-dir d",
            "tollgate account top-up acme -0.50 --note correction",
            "tollgate account list --json",
            "tollgate account top-up acme -5 --kind refund --note back",
            "tollgate account reset acme --note goodwill",
            "tollgate account create acme --multiplier 0.9 --tier Gold",
            "tollgate account edit acme --no-multiplier --automatic-tier",
            "tollgate topup acme 5.00 --json",
            "tollgate plan create Pro --price 20.00 --allowance 25.00 --window week=10.00 --fallback",
            "tollgate plan create Bulk --cycle week --price 20 --tokens 1000000 --multiplier 0.9",
            "tollgate plan edit Pro --price 30.00 --no-windows --active",
            "tollgate plan retire 3",
            "tollgate subscription start acme Pro --fallback true",
            "tollgate subscription change acme Small --next-cycle",
            "tollgate subscription change acme --fallback false",
            "tollgate subscription cancel acme --now",
            "tollgate subscription resume acme",
            "tollgate subscription reset acme --note n --json",
            "tollgate budget create --account acme day --limit 5.00 --period day --each end-user --model gpt-4o*",
            "tollgate budget create --account acme t --limit 5000 --metric tokens --period once --project 3",
            "tollgate budget list --account acme",
            "tollgate budget edit 7 --limit 10.00",
            "tollgate budget counters 7",
            "tollgate budget reset 7",
            "tollgate limit create rpm --metric requests --amount 60 --window minute --each account --each model",
            "tollgate limit create spend --metric money --amount 5.00 --window now --account acme --json",
            "tollgate limit list --json",
            "tollgate limit show -1",
            "tollgate limit change rpm --amount 90",
            "tollgate limit edit 7 --name other",
            "tollgate limit delete rpm",
            "tollgate limit preset list",
            "tollgate limit preset show tiers",
            "tollgate limit preset apply three-layers --account acme --prefix acme- --amount rpm=60 --amount tpm=5",
            "tollgate account link other acme",
            "tollgate account unlink other",
            "tollgate key change 7 --wait 5s --priority high",
            "tollgate key edit 7 --no-wait",
            "tollgate key create --account acme --name ci --wait 2m --priority low",
            "tollgate grant give acme 5.00 --expires-at 2027-01-01T00:00:00Z --note welcome",
            "tollgate grant revoke acme 12",
            "tollgate code create --amount 5.00 --batch spring --count 100 --csv",
            "tollgate code create --amount 5.00 --batch spring --grant-days 30 --json",
            "tollgate code list --batch spring",
            "tollgate code revoke 7",
            "tollgate code revoke --batch spring",
            "tollgate code redeem acme TG-7K3MQ-X0A9V-2RBCD-E5FGH-JNPST",
            "tollgate statement acme --from 2026-11-01 --to 2026-11-30 --csv",
            "tollgate tier list",
            "tollgate tier set 6 --name Gold --paid 5000 --days 30 --multiplier 0.8 --no-monthly",
            "tollgate key reset 7 --note n",
            "tollgate ledger balance acme",
            "tollgate ledger entries acme --before 12 --limit 5",
            "tollgate ledger statement acme",
            "tollgate account edit acme --name other --error-profile relay --shows-upstream true",
            "tollgate key create --account acme --name ci --quota 1.00 --json --data-dir d",
            "tollgate key create --account acme --name ci --quota-tokens 50000 --json",
            "tollgate key create --account acme --name ci --expires-at 2027-01-01T00:00:00Z --model a --model b*",
            "tollgate key create --account acme --name ci --expires-at 2027-01-01",
            "tollgate key show 7 --json --data-dir d",
            "tollgate key edit 7 --no-quota --address 10.0.0.0/8 --no-expiry",
            "tollgate key rotate 7 --grace-seconds 3600",
            "tollgate --data-dir d key block 7",
            "tollgate key create --account acme --name ci --project 3 --role viewer",
            "tollgate key edit 7 --no-project --no-role",
            "tollgate account edit acme --time-zone Europe/Berlin",
            "tollgate project create --account acme production",
            "tollgate project list --account acme --json",
            "tollgate project archive 3",
            "tollgate user create ann@example.com --name Ann",
            "tollgate user block ann@example.com",
            "tollgate user password-token 7",
            "tollgate member add --account acme ann@example.com --role owner",
            "tollgate member invite --account acme bob@example.com --role viewer --json",
            "tollgate member set-role --account acme 7 admin",
            "tollgate member uninvite --account acme 3",
            "tollgate operator create ops --json",
            "tollgate operator revoke 2",
            "tollgate order list --account acme --state paid --limit 20 --json",
            "tollgate order show ord_00000000000000000000000000000000",
            "tollgate order refund ord_0 --amount 5.00 --reason goodwill",
            "tollgate audit --operator default --from 2026-11-01T00:00:00Z --limit 500",
            "tollgate usage --project 3",
            "tollgate price list --model gpt-4o",
            "tollgate price set m --input 1.00 --output 2.00",
            "tollgate price set m --model-rate 15 --completion-multiplier 2",
            "tollgate price set m --input 1 --output 2 --rate per_web_search=0.01",
            "tollgate price remove m",
            "tollgate usage --account acme --from 2026-11-01 --to 2026-11-22",
            "tollgate usage --key 7 --url http://h:1 --operator-key op",
            "tollgate ledger verify --json --data-dir d",
            "tollgate diagnose",
            "tollgate diagnose answer.txt --provider azure --json",
            "tollgate diagnose - --status 429",
            "tollgate bench ledger --workers 2 --accounts 2 --seconds 1 --json",
        ] {
            parse(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn m_32_what_makes_no_sense_is_a_usage_error() {
        for line in [
            "tollgate",
            "tollgate account top-up acme five",
            "tollgate account top-up acme 1e3",
            "tollgate account top-up acme NaN",
            "tollgate account create acme --balance 0.0000000001",
            "tollgate account top-up acme 5 --kind gift",
            "tollgate account edit acme --multiplier -1",
            "tollgate plan create Pro --price 20.00",
            "tollgate plan create Pro --price 20.00 --allowance 5 --tokens 5",
            "tollgate plan create Pro --price 20.00 --allowance 5 --cycle year",
            "tollgate subscription change acme --next-cycle",
            "tollgate budget create --account a b --limit 5 --period year",
            "tollgate budget create --account a b --limit 5 --period day --each tag",
            "tollgate limit create rpm --metric requests --amount 60",
            "tollgate limit create rpm --metric words --amount 60 --window minute",
            "tollgate limit create rpm --metric requests --amount 60 --window fortnight",
            "tollgate limit create rpm --metric requests --amount 60 --window minute --each tag",
            "tollgate limit preset apply rpm --amount 60",
            "tollgate account link acme",
            "tollgate key change 7 --wait soon",
            "tollgate key change 7 --wait 99999999999m",
            "tollgate key change 7 --wait 5s --no-wait",
            "tollgate key change 7 --priority urgent",
            "tollgate grant give acme 0.0000000001",
            "tollgate code create --amount 5",
            "tollgate code revoke",
            "tollgate code revoke 7 --batch b",
            "tollgate tier set 6 --paid 5 --by-hand",
            "tollgate ledger entries acme --limit 0",
            "tollgate key create --name ci",
            "tollgate key create --account a --name n --quota-tokens -5",
            "tollgate key create --account a --name n --error-profile nice",
            "tollgate key create --account a --name n --expires-at tomorrow",
            "tollgate key edit 7 --quota 1 --no-quota",
            "tollgate key show seven",
            "tollgate price set m --input 1 --model-rate 2",
            "tollgate price set m",
            "tollgate usage",
            "tollgate usage --account a --key 7",
            "tollgate usage --project 3 --key 7",
            "tollgate member add --account a ann@example.com --role king",
            "tollgate order refund ord_0",
            "tollgate order list --state lost",
            "tollgate key edit 7 --role admin --no-role",
            "tollgate diagnose --status 42",
            "tollgate diagnose --provider nobody",
            "tollgate bench ledger --workers 0",
        ] {
            let error = parse(line).err().unwrap_or_else(|| panic!("{line} was understood"));
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn a_date_is_the_start_of_its_day() {
        assert_eq!(moment("2026-11-25").unwrap().to_string(), "2026-11-25T00:00:00Z");
        assert_eq!(moment("2026-11-25T08:00:00+01:00").unwrap().to_string(), "2026-11-25T07:00:00Z");
        for text in ["", "tomorrow", "2026-02-30", "2026-11-25T08:00:00", "20261125"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_usage_line_does_not_ask_for_what_has_a_default() {
        let told = parse("tollgate budget create").unwrap_err().to_string();
        assert!(told.contains("Usage: ") && !told.contains("--data-dir"), "{told}");
    }

    #[test]
    fn an_address_needs_a_key() {
        let cli = parse("tollgate key list --url http://127.0.0.1:1").unwrap();
        if cli.globals.operator_key.is_none() {
            assert_eq!(target(&cli.globals).unwrap_err().exit_code(), 2);
        }
        let cli = parse("tollgate key list --url http://127.0.0.1:1 --operator-key k").unwrap();
        assert!(matches!(target(&cli.globals), Ok(Target::Remote { .. })));
    }

    #[test]
    fn serve_takes_the_global_directory() {
        let cli = parse("tollgate serve --data-dir here").unwrap();
        assert_eq!(cli.globals.data_dir(), PathBuf::from("here"));
        assert!(matches!(cli.command, Command::Serve(ServeArgs { listen: None, config: None, .. })));
    }
}
