//! `deed observe import`

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use deed_client::{
    Ledger, Signing,
    records::{self, Flaw, Record, Records},
    statement_json::StatementJson,
};
use deed_evidence::{LedgerId, Micros, TaskId, signature, statement};
use deed_proto::v1::{self, KeyRole, statement::Body};
use deed_tlog::Hash;
use serde::Serialize;
use serde_json::Value;

use super::{
    mapping::{Mapping, Reading, shipped},
    sender::{Maker, Sender, Sent},
};
use crate::{
    args::{Global, hex_bytes, producer},
    author::{Producer, ProducerArgs, secret},
    failure::{CommandResult, Failure},
    files::read_file,
    render::{Omissions, Output, Tally, report, shown, to_json},
};

/// Number of records without any observation from which the mapping is probably the wrong one.
const MANY: u64 = 10;

/// Import other systems' logs as observations
///
/// Files hold JSON lines, arrays, or objects with a list of records, over as many lines as they like,
/// packed by gzip or not; - is standard input. A mapping says where effects, times, references and
/// correlation keys come from, and which records hold no effect. Two come with this program, cloudtrail
/// (AWS) and kubernetes (audit log); docs/imports.md explains the language.
///
/// Each record becomes an observation in a session of its own, derived from the record and from a secret
/// that is made once in the state directory. So a second import of a record, from any file, records
/// nothing, and nobody else can guess or take the session.
///
/// With --key of the system itself the observations are the system's word; with an importer's key, or
/// without a key, they are claims. An effect is a claim, too, if the record does not say for certain that
/// it was done and to which object: a system's key does not sign it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  deed observe import trail/*.json.gz --mapping cloudtrail --key importer.pem
  cat audit-*.log | deed observe import - --mapping kubernetes \\
       --producer import:k8s
  deed observe import bank.jsonl --mapping bank.toml --dry-run

A record that cannot be read or recorded is named and counted, and the import
goes on. Exit codes: 2 if there were such records, or if ten or more records
gave no observation; 3 if the ledger rejected a record.")]
pub(super) struct ImportLog {
    /// The logs
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// cloudtrail, kubernetes, or a file of your own (TOML)
    #[arg(long, value_name = "NAME|FILE")]
    mapping: String,
    /// Task of all observations: 32 hex digits
    #[arg(long, value_name = "HEX", value_parser = hex_bytes::<16>)]
    task: Option<[u8; 16]>,
    /// Send nothing: make the statements, check them and show them. Without --key and --producer no
    /// server is asked, and the statements name a made-up ledger and producer
    #[arg(long)]
    dry_run: bool,
    /// Producer of effects that prove nothing, if --key is a downstream system's: a URI without a key
    #[arg(long, value_name = "URI", value_parser = producer,
          default_value = "import:observe/unsigned")]
    claimant: String,
    #[command(flatten)]
    producer: ProducerArgs,
}

/// The summary of an import.
#[derive(Debug, Default, Serialize)]
struct Summary {
    files: u64,
    records: u64,
    observations: u64,
    effects: u64,
    /// Effects that can prove nothing: they name no object, or the record leaves a doubt.
    claims: u64,
    /// Records that say nothing.
    left_out: u64,
    /// Records that were not understood, by reason.
    nothing: BTreeMap<String, u64>,
    /// Records whose effects are claims for a doubt, by reason.
    doubts: BTreeMap<String, u64>,
    /// Records that could not be read, understood or made statements of.
    refused: u64,
    /// Bytes of what could not be read, and of what was lost with it.
    passed_over: u64,
    #[serde(flatten)]
    tally: Tally,
}

/// The destination of statements.
enum Sink {
    Ledger(Box<Sender>),
    /// Statements are shown; the last field counts them.
    Shown(Output, bool, u64),
}

/// An import under way.
struct Import<'a> {
    mapping: &'a Mapping,
    maker: Maker,
    sink: Sink,
    summary: Summary,
    named: Omissions,
}

impl ImportLog {
    pub(super) async fn run(&self, global: &Global) -> CommandResult {
        let mapping = Mapping::parse(&mapping_text(&self.mapping)?)
            .map_err(|error| Failure::usage(error).context(self.mapping.clone()))?;
        // Local files first: nothing is sent if one of them is not there.
        self.files.iter().try_for_each(|path| is_there(path))?;
        let (maker, sink) = self.maker(global).await?;
        let mut import = Import {
            mapping: &mapping,
            maker,
            sink,
            summary: Summary::default(),
            named: Omissions::default(),
        };
        let mut read = Ok(());
        for path in &self.files {
            read = import.file(path).await;
            if read.is_err() {
                break;
            }
        }
        let finished = import.finish().await;
        // The summary is printed even if the import failed.
        let printed = import.print(global.output(), global.json);
        finished.and(read)?;
        import.summary.check()?;
        printed
    }

    /// Returns the maker of the statements, and the sink that they go to.
    async fn maker(&self, global: &Global) -> CommandResult<(Maker, Sink)> {
        let shown = |global: &Global| Sink::Shown(global.output(), global.json, 0);
        let task = self.task.map(TaskId::new);
        if self.dry_run && !self.producer.is_given() {
            report(
                "ledger and producer are stand-ins: --key or --producer shows the very statements",
            );
            let maker = Maker {
                ledger_id: LedgerId::new(Hash::new([0; 32])),
                producer: "import:dry-run".to_owned(),
                claimant: None,
                secret: [0; 32],
                task,
            };
            return Ok((maker, shown(global)));
        }
        let ledger = global.connect().await?;
        let Producer { name, key } = self.producer.required(&ledger).await?;
        let signing = key.map_or(Signing::None, Signing::Each);
        let can_prove = can_prove(&ledger, &signing).await?;
        let maker = Maker {
            ledger_id: ledger.ledger_id(),
            producer: name,
            claimant: can_prove.then(|| self.claimant.clone()),
            secret: secret::made_once(&global.state()?)?,
            task,
        };
        let sink = match self.dry_run {
            true => shown(global),
            false => Sink::Ledger(Box::new(Sender::new(ledger, signing))),
        };
        Ok((maker, sink))
    }
}

/// Returns true if statements that are signed so can prove something of a resource.
async fn can_prove(ledger: &Ledger, signing: &Signing) -> CommandResult<bool> {
    let Some(key) = signing.key() else {
        return Ok(false);
    };
    let trust = ledger.trust_chain().await?;
    let record = trust.state.key(signature::key_id(key.public_key()));
    Ok(record.is_none_or(|record| record.role != KeyRole::Importer))
}

/// A mapping that comes with the program, or a file's text.
fn mapping_text(name: &str) -> CommandResult<String> {
    if let Some(text) = shipped(name) {
        return Ok(text.to_owned());
    }
    let bytes = read_file(Path::new(name)).map_err(|failure| {
        failure.context("the mappings that come with this program are cloudtrail and kubernetes")
    })?;
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| Failure::usage(format!("{name} is not UTF-8")))?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

fn is_there(path: &Path) -> CommandResult {
    if path.as_os_str() == "-" {
        return Ok(());
    }
    let unreadable = |error: std::io::Error| {
        let what = format!("cannot read {}", path.display());
        Failure::Usage(anyhow::Error::new(error).context(what))
    };
    match fs::metadata(path).map_err(unreadable)?.is_dir() {
        true => Err(Failure::usage(format!(
            "{} is a directory; name the files in it",
            path.display()
        ))),
        false => Ok(()),
    }
}

impl Import<'_> {
    async fn file(&mut self, path: &Path) -> CommandResult {
        let name = match path.as_os_str() == "-" {
            true => "standard input".to_owned(),
            false => path.display().to_string(),
        };
        self.summary.files += 1;
        let source = records::open(path).map_err(|error| {
            let what = format!("cannot read {name}");
            Failure::Usage(anyhow::Error::new(error).context(what))
        })?;
        let before = self.summary.records;
        let mut all = Records::new(source, self.mapping.lists());
        for one in all.by_ref() {
            match one {
                Ok(record) => self.record(&name, record).await?,
                Err(Flaw { place, reason, .. }) => {
                    self.summary.records += 1;
                    self.refuse(&format!("{name}: {place}: {reason}"));
                }
            }
        }
        if all.passed_over() > 0 {
            self.summary.passed_over += all.passed_over();
            report(&format!(
                "{name}: {} bytes were passed over, for they could not be read or stood beside what could not",
                all.passed_over()
            ));
        }
        if self.summary.records == before {
            report(&format!("{name}: it holds no record"));
        }
        Ok(())
    }

    async fn record(&mut self, name: &str, record: Record) -> CommandResult {
        let place = format!("{name}: {}", record.place);
        let value = match records::parse(&record.text) {
            Ok(value) => value,
            Err(error) => match behind_prefix(&record.text) {
                Some(value) => value,
                None => {
                    self.summary.records += 1;
                    self.refuse(&format!("{place}: it is no JSON: {}", plain(&error)));
                    return Ok(());
                }
            },
        };
        drop(record);
        let parts = self.mapping.records(value);
        let several = parts.len() > 1;
        for (n, part) in (1_u64..).zip(&parts) {
            self.summary.records += 1;
            let place = match several {
                true => format!("{place}, part {n}"),
                false => place.clone(),
            };
            let read = self.mapping.map(part).and_then(|reading| match reading {
                Reading::Nothing(because) => Ok(Err(because)),
                Reading::Seen(mapped) => {
                    // Looked at only where the record has no name.
                    let whole = match mapped.reference.is_empty() {
                        true => part.to_string(),
                        false => String::new(),
                    };
                    let all = self.maker.make(&mapped, &whole, &place)?;
                    Ok(Ok((mapped, all)))
                }
            });
            let (mapped, all) = match read {
                Err(reason) => {
                    self.refuse(&format!("{place}: {reason}"));
                    continue;
                }
                Ok(Err(because)) => {
                    self.summary.left_out += 1;
                    *self.summary.nothing.entry(because).or_default() += 1;
                    continue;
                }
                Ok(Ok(seen)) => seen,
            };
            self.summary.observations += all.len() as u64;
            self.summary.effects += mapped.effects.len() as u64;
            self.summary.claims += mapped.claims.len() as u64;
            for doubt in mapped.doubts {
                *self.summary.doubts.entry(doubt).or_default() += 1;
            }
            for sent in all {
                self.take(sent).await?;
            }
        }
        Ok(())
    }

    async fn take(&mut self, sent: Sent) -> CommandResult {
        let refused = match &mut self.sink {
            Sink::Ledger(sender) => sender.take(sent).await?,
            Sink::Shown(output, json, count) => {
                if *json {
                    // The output is one document: the statements, then the rest of the summary.
                    let comma = if *count == 0 {
                        "{\"statements\": ["
                    } else {
                        ","
                    };
                    output.line(&format!("{comma}{}", statement_json(&sent)?))?;
                } else {
                    text_of(&sent)?
                        .iter()
                        .try_for_each(|line| output.line(line))?;
                }
                *count += 1;
                Vec::new()
            }
        };
        for line in &refused {
            self.named.report(line);
        }
        Ok(())
    }

    async fn finish(&mut self) -> CommandResult {
        if let Sink::Ledger(sender) = &mut self.sink {
            let refused = sender.finish().await;
            self.summary.tally = sender.tally;
            for line in &refused? {
                self.named.report(line);
            }
        }
        self.named.end();
        for (doubt, count) in &self.summary.doubts {
            report(&format!("claims only, of {count} records: {doubt}"));
        }
        let Summary {
            records,
            observations: 0,
            ..
        } = self.summary
        else {
            return Ok(());
        };
        if records > 0 {
            report(&format!(
                "no observation in {records} records: is it the right mapping?"
            ));
        }
        Ok(())
    }

    fn print(&self, output: Output, json: bool) -> CommandResult {
        match &self.sink {
            Sink::Shown(_, _, count) if json => {
                let rest = to_json(&self.summary)?;
                let rest = rest.strip_prefix('{').unwrap_or(&rest);
                let begin = if *count == 0 {
                    "{\"statements\": ["
                } else {
                    ""
                };
                output.line(&format!("{begin}], {rest}"))
            }
            _ => output.print(&self.summary, Summary::text),
        }
    }

    fn refuse(&mut self, line: &str) {
        self.summary.refused += 1;
        self.named.report(line);
    }
}

/// An object behind the words that a container runtime or a system log puts before each line.
fn behind_prefix(text: &str) -> Option<Value> {
    if text.starts_with(['{', '[']) {
        return None;
    }
    let (_, object) = text.split_once(" {")?;
    records::parse(&format!("{{{object}")).ok()
}

/// Returns the error in a record's text. Its lines are the record's, not the file's, so they are left out.
fn plain(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    text[..end].to_owned()
}

fn decoded(sent: &Sent) -> CommandResult<v1::Statement> {
    statement::decode(&sent.made.payload).map_err(|error| Failure::usage(error.to_string()))
}

fn statement_json(sent: &Sent) -> CommandResult<String> {
    to_json(&StatementJson::from(decoded(sent)?))
}

/// An observation, an effect a line.
fn text_of(sent: &Sent) -> CommandResult<Vec<String>> {
    let statement = decoded(sent)?;
    let Some(Body::Observation(observation)) = statement.body else {
        return Ok(Vec::new());
    };
    let at = shown(Micros::new(observation.observed_at_us));
    let keys: Vec<_> = statement
        .correlation_keys
        .iter()
        .map(|key| format!("{}={}", key.kind, key.value))
        .collect();
    let vague = if sent.is_vague { "  (a claim)" } else { "" };
    let keys = keys.join(" ");
    let lines = observation.effects.iter().map(|effect| {
        let line = format!(
            "{at}  {} on {}{vague}  {keys}",
            effect.kind, effect.resource
        );
        line.trim_end().to_owned()
    });
    Ok(lines.collect())
}

impl Summary {
    /// Returns the result of the command: anything that was not recorded is a failure.
    fn check(&self) -> CommandResult {
        self.tally
            .check()
            .map_err(|failure| failure.context("the records that they are of are named above"))?;
        if self.refused > 0 {
            return Err(Failure::usage(format!(
                "{} of {} records could not be read, understood or recorded, as is said above; what \
                 was read of the others is imported",
                self.refused, self.records
            )));
        }
        if self.observations == 0 && self.records >= MANY {
            return Err(Failure::usage(format!(
                "none of {} records gave an observation",
                self.records
            )));
        }
        Ok(())
    }

    fn text(&self) -> String {
        let mut text = format!(
            "files         {}\nrecords       {}\nobservations  {}\neffects       {}\n\
             claims        {} (these can prove nothing)\nsay nothing   {}",
            self.files, self.records, self.observations, self.effects, self.claims, self.left_out,
        );
        for (because, count) in &self.nothing {
            text.push_str(&format!("\n  {count} {because}"));
        }
        text.push_str(&format!(
            "\nrefused       {}\naccepted      {}\nduplicates    {}\nrejected      {}",
            self.refused, self.tally.accepted, self.tally.duplicates, self.tally.rejected
        ));
        text
    }
}
