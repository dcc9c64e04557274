//! The commands `token`, `role` and `tls`: permissions, and certificates for development.
//!
//! All of them work on files, whether the server runs or not; it notices changes within a second or
//! two.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode, str::FromStr};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use deed_evidence::Micros;
use deed_server::{
    Clock as _, SystemClock,
    access::{
        file::{AccessFile, GrantRecord, TokenRecord, TokenRequest},
        role::{EVERY_LEDGER, Role},
    },
    listener::issue,
};

use crate::print_line;

/// Largest width of a table, in columns.
const WIDTH: usize = 80;

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 24 * 60 * 60 * SECOND_US;

/// Longest validity of a token, in days, so that each is reviewed once in a while.
const EXPIRES_DAYS_MAX: i64 = 3660;

/// Commands about tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it on stdout. It is shown this once.
    #[command(after_help = "Example:\n  deed-server token create --principal \
                            spiffe://example.org/agent \\\n    --ledger runs --role append,read \
                            --expires 30d > agent.token")]
    Create {
        /// Principal that the token stands for: a SPIFFE ID or any other name.
        #[arg(long)]
        principal: String,
        /// Ledger in which the principal gets the roles of the --role that follows; '*' for all.
        #[arg(long)]
        ledger: Vec<String>,
        /// Roles in the ledger before, separated by commas: append, read, audit, authority, admin.
        #[arg(long)]
        role: Vec<RoleList>,
        /// The only ledgers that this token is good for, whatever roles the principal has.
        #[arg(long, value_delimiter = ',')]
        only_ledger: Vec<String>,
        /// Validity, for example 12h or 30d.
        #[arg(long, default_value = "30d")]
        expires: Expiry,
        #[command(flatten)]
        place: Place,
    },
    /// Show the tokens: the id of each one, never the token itself.
    List {
        #[command(flatten)]
        place: Place,
    },
    /// Revoke a token. It is refused from then on, also on streams that are open.
    Revoke {
        /// Id of the token: its second part, 16 digits.
        id: String,
        #[command(flatten)]
        place: Place,
    },
}

/// Commands about roles.
#[derive(Debug, Subcommand)]
pub(crate) enum RoleCommand {
    /// Give a principal roles in a ledger.
    #[command(after_help = "Example:\n  deed-server role grant --principal \
                            spiffe://example.org/auditor \\\n    --ledger runs --role audit")]
    Grant(RoleArguments),
    /// Take roles away.
    Revoke(RoleArguments),
    /// Show which principal has which role.
    List {
        /// Show only this principal.
        #[arg(long)]
        principal: Option<String>,
        /// Show only this ledger.
        #[arg(long)]
        ledger: Option<String>,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct RoleArguments {
    /// Principal: a SPIFFE ID, a certificate's subject (RFC 4514), or a name that tokens carry.
    #[arg(long)]
    principal: String,
    /// Ledger; '*' for all that there are and will be.
    #[arg(long)]
    ledger: String,
    /// Roles, separated by commas: append, read, audit, authority, admin.
    #[arg(long)]
    role: RoleList,
    #[command(flatten)]
    place: Place,
}

/// Commands about certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum TlsCommand {
    /// Make a private authority and a server certificate, for development.
    #[command(after_help = "Example:\n  deed-server tls init --dir ./tls --name \
                            localhost,127.0.0.1")]
    Init {
        /// Directory for the files; created if missing.
        #[arg(long)]
        dir: PathBuf,
        /// Names and addresses of the server, separated by commas.
        #[arg(long, value_delimiter = ',', default_value = "localhost,127.0.0.1,::1")]
        name: Vec<String>,
    },
    /// Make a client certificate that the authority has signed.
    #[command(
        after_help = "Example:\n  deed-server tls client --dir ./tls --principal \
                            spiffe://example.org/agent"
    )]
    Client {
        /// Directory of the authority; the files are put there too.
        #[arg(long)]
        dir: PathBuf,
        /// Principal that it names: a SPIFFE ID.
        #[arg(long)]
        principal: String,
        /// Name of the files [default: the last part of the principal].
        #[arg(long)]
        file: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The server's data directory.
    #[arg(long, default_value = "./deed-data")]
    data_dir: PathBuf,
}

/// A list of roles in one argument.
#[derive(Debug, Clone)]
pub(crate) struct RoleList(Vec<Role>);

impl FromStr for RoleList {
    type Err = <Role as FromStr>::Err;

    fn from_str(list: &str) -> Result<Self, Self::Err> {
        list.split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// The validity of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expiry {
    us: i64,
}

impl FromStr for Expiry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
        let us = units.into_iter().find_map(|(unit, seconds)| {
            let count: u32 = text.strip_suffix(unit)?.parse().ok()?;
            i64::from(count).checked_mul(seconds * SECOND_US)
        });
        us.filter(|us| (SECOND_US..=EXPIRES_DAYS_MAX * DAY_US).contains(us))
            .map(|us| Self { us })
            .ok_or_else(|| {
                format!(
                    "give a number and a unit, for example 12h or 30d; {EXPIRES_DAYS_MAX}d at most"
                )
            })
    }
}

/// Runs `deed-server token`.
///
/// # Errors
/// Any error of the command, with a message for the operator.
pub(crate) fn token(command: TokenCommand) -> anyhow::Result<ExitCode> {
    let now = SystemClock.now();
    match command {
        TokenCommand::Create {
            principal,
            ledger,
            role,
            only_ledger,
            expires,
            place,
        } => {
            if ledger.len() != role.len() {
                bail!(
                    "{} --ledger and {} --role: each --ledger wants its --role, for example \
                     --ledger runs --role append,read",
                    ledger.len(),
                    role.len()
                );
            }
            let request = TokenRequest {
                principal,
                ledgers: (!only_ledger.is_empty()).then_some(only_ledger),
                now,
                expires: Micros::new(now.get().saturating_add(expires.us)),
            };
            let (record, text) = AccessFile::edit(&place.data_dir, |file| {
                for (ledger, RoleList(roles)) in ledger.iter().zip(&role) {
                    for &role in roles {
                        file.grant(&request.principal, ledger, role)?;
                    }
                }
                file.create_token(request)
            })?;
            eprintln!(
                "token {} of {} is good until {}; it is not shown again",
                record.id,
                record.principal,
                utc(record.expires_us)
            );
            if !AccessFile::load(&place.data_dir)?
                .grants()
                .iter()
                .any(|grant| grant.principal == record.principal)
            {
                eprintln!("its principal has no role yet: see `deed-server role grant --help`");
            }
            print_line(&text);
        }
        TokenCommand::List { place } => {
            let file = AccessFile::load(&place.data_dir)?;
            print_table(&tokens_table(file.tokens(), now), "there are no tokens");
        }
        TokenCommand::Revoke { id, place } => {
            let principal = AccessFile::edit(&place.data_dir, |file| {
                Ok(file.revoke_token(&id, now)?.principal.clone())
            })?;
            eprintln!("token {id} of {principal} is revoked");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `deed-server role`.
///
/// # Errors
/// Any error of the command, with a message for the operator.
pub(crate) fn role(command: RoleCommand) -> anyhow::Result<ExitCode> {
    match command {
        RoleCommand::Grant(RoleArguments {
            principal,
            ledger,
            role: RoleList(roles),
            place,
        }) => {
            AccessFile::edit(&place.data_dir, |file| {
                for &role in &roles {
                    file.grant(&principal, &ledger, role)?;
                }
                Ok(())
            })?;
            eprintln!("{principal} has {} in {}", words(&roles), place_of(&ledger));
        }
        RoleCommand::Revoke(RoleArguments {
            principal,
            ledger,
            role: RoleList(roles),
            place,
        }) => {
            AccessFile::edit(&place.data_dir, |file| {
                for &role in &roles {
                    file.revoke(&principal, &ledger, role)?;
                }
                Ok(())
            })?;
            eprintln!(
                "{principal} does not have {} in {} any more",
                words(&roles),
                place_of(&ledger)
            );
        }
        RoleCommand::List {
            principal,
            ledger,
            place,
        } => {
            let file = AccessFile::load(&place.data_dir)?;
            let wanted = |grant: &&GrantRecord| {
                principal.as_ref().is_none_or(|one| *one == grant.principal)
                    && ledger.as_ref().is_none_or(|one| *one == grant.ledger)
            };
            let grants = file.grants().iter().filter(wanted).collect::<Vec<_>>();
            print_table(&roles_table(&grants), "nobody has a role");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `deed-server tls`.
///
/// # Errors
/// Any error of the command, with a message for the operator.
pub(crate) fn tls(command: TlsCommand) -> anyhow::Result<ExitCode> {
    let now = SystemClock.now();
    let files = match command {
        TlsCommand::Init { dir, name } => issue::init(&dir, &name, now),
        TlsCommand::Client {
            dir,
            principal,
            file,
        } => issue::client(&dir, &principal, file.as_deref(), now),
    };
    for file in files.context("no certificate was made")? {
        print_line(&file.display().to_string());
    }
    Ok(ExitCode::SUCCESS)
}

fn words(roles: &[Role]) -> String {
    let words = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>();
    words.join(", ")
}

fn place_of(ledger: &str) -> String {
    match ledger {
        EVERY_LEDGER => "every ledger".to_owned(),
        ledger => format!("ledger {ledger}"),
    }
}

/// Prints a table to stdout; if it is empty, prints `nothing` to stderr.
fn print_table(table: &str, nothing: &str) {
    if table.is_empty() {
        eprintln!("{nothing}");
    } else {
        print_line(table.trim_end());
    }
}

fn tokens_table(tokens: &[TokenRecord], now: Micros) -> String {
    let mut table = String::new();
    if tokens.is_empty() {
        return table;
    }
    let _ = writeln!(
        table,
        "{:16}  {:7}  {:16}  PRINCIPAL",
        "ID", "STATE", "EXPIRES (UTC)"
    );
    for token in tokens {
        let state = match token.revoked_us {
            Some(_) => "revoked",
            None if token.expires_us <= now.get() => "expired",
            None => "good",
        };
        let expires = utc(token.expires_us);
        let first = format!("{:16}  {state:7}  {expires:16}  ", token.id);
        push_wrapped(&mut table, &first, &token.principal);
        if let Some(ledgers) = &token.ledgers {
            push_wrapped(&mut table, "  only in: ", &ledgers.join(", "));
        }
    }
    table
}

fn roles_table(grants: &[&GrantRecord]) -> String {
    let mut table = String::new();
    let mut before = None;
    for grant in grants {
        if before != Some(&grant.principal) {
            push_wrapped(&mut table, "", &grant.principal);
            before = Some(&grant.principal);
        }
        let first = format!("  {:30}  ", grant.ledger);
        push_wrapped(&mut table, &first, &words(&grant.roles));
    }
    table
}

/// Adds a line that begins with `first`, and as many more below it as `text` needs. If `first`
/// leaves no room, it gets a line of its own.
fn push_wrapped(table: &mut String, first: &str, text: &str) {
    let used = first.chars().count();
    let mut indent = used;
    if used + 30 > WIDTH {
        table.push_str(first.trim_end());
        table.push('\n');
        indent = 4;
    } else {
        table.push_str(first);
    }
    let mut begun = indent == used;
    let text = text.chars().collect::<Vec<_>>();
    for line in text.chunks(WIDTH - indent) {
        if !begun {
            table.extend(std::iter::repeat_n(' ', indent));
        }
        begun = false;
        table.extend(line);
        table.push('\n');
    }
}

/// Formats a time as `2026-11-24 00:45`, UTC.
fn utc(us: i64) -> String {
    let (days, minute) = (
        us.div_euclid(DAY_US),
        us.rem_euclid(DAY_US) / SECOND_US / 60,
    );
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}",
        minute / 60,
        minute % 60
    )
}

/// Returns year, month and day of a day counted from 1970-01-01, in the Gregorian calendar. Years
/// begin in March here, so that the leap day is a year's last.
fn date(days: i64) -> (i64, i64, i64) {
    const DAYS_400_YEARS: i64 = 146_097;
    // 719,468 is the number of days from 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (
        days.div_euclid(DAYS_400_YEARS),
        days.rem_euclid(DAYS_400_YEARS),
    );
    // Without the leap days of the years before it, a day's year is a division by 365.
    let leaps = day_of_era / 1_460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    // Months from March on have 31, 30, 31, 30, 31 days, which repeats: 153 days in five months.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let january_or_later = i64::from(month >= 10);
    let month = month + 3 - 12 * january_or_later;
    (era * 400 + year + january_or_later, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (us, text) in [
            (0, "1970-01-01 00:00"),
            (951_782_400 * SECOND_US, "2000-02-29 00:00"),
            (951_868_800 * SECOND_US, "2000-03-01 00:00"),
            (1_795_481_100 * SECOND_US, "2026-11-24 00:45"),
            (4_107_542_399 * SECOND_US, "2100-02-28 23:59"),
            (4_107_542_400 * SECOND_US, "2100-03-01 00:00"),
        ] {
            assert_eq!(utc(us), text);
        }
        // Each day must be the one after the day before it, for 400 years.
        let mut before = date(-1);
        for days in 0..146_097 {
            let today = date(days);
            let (year, month, day) = before;
            let next_month = (year + month / 12, month % 12 + 1, 1);
            assert!(
                today == (year, month, day + 1) || today == next_month,
                "{days}"
            );
            assert!((1..=31).contains(&today.2));
            before = today;
        }
        assert_eq!(before, (2369, 12, 31));
    }

    #[test]
    fn expiries_have_units_and_bounds() {
        let expiry = |text: &str| text.parse::<Expiry>().ok().map(|expiry| expiry.us);
        assert_eq!(expiry("30d"), Some(30 * DAY_US));
        assert_eq!(expiry("12h"), Some(DAY_US / 2));
        assert_eq!(expiry("90m"), Some(5400 * SECOND_US));
        assert_eq!(expiry("1s"), Some(SECOND_US));
        for bad in [
            "",
            "30",
            "d",
            "0d",
            "-1d",
            "1.5d",
            "3661d",
            "99999999999d",
            "1w",
            "ä",
        ] {
            assert_eq!(expiry(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn tables_fit_80_columns_and_lose_nothing() {
        let long = format!("spiffe://example.org/{}", "x".repeat(300));
        let ledger = "l".repeat(63);
        let mut file = AccessFile::default();
        for principal in ["spiffe://example.org/agent", &long] {
            let request = TokenRequest {
                principal: principal.to_owned(),
                ledgers: Some(vec![ledger.clone(), "runs".to_owned()]),
                now: Micros::new(0),
                expires: Micros::new(DAY_US),
            };
            file.create_token(request).unwrap();
            for place in [EVERY_LEDGER, &ledger] {
                for role in [Role::Append, Role::Read, Role::Audit, Role::Authority] {
                    file.grant(principal, place, role).unwrap();
                }
            }
        }
        let grants = file.grants().iter().collect::<Vec<_>>();
        for now in [0, DAY_US] {
            let tables = [
                tokens_table(file.tokens(), Micros::new(now)),
                roles_table(&grants),
            ];
            for table in tables {
                assert!(
                    table.lines().all(|line| line.chars().count() <= WIDTH),
                    "{table}"
                );
                assert_eq!(
                    table.matches('x').count(),
                    300 + table.matches("ex").count()
                );
                assert!(!table.contains(" \n"), "{table}");
            }
        }
        let now = tokens_table(file.tokens(), Micros::new(DAY_US));
        assert_eq!(now.matches("expired").count(), 2);
    }
}
