//! The command `deed-server run`.

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Args;
use deed_server::{Server, SystemClock, config::Flags, config::Settings, telemetry};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::SettingArguments;
use crate::print_line;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: SettingArguments,
}

/// Longest time for tasks that are still running to end.
const RUNTIME_SHUTDOWN: Duration = Duration::from_secs(1);

pub(crate) fn run(arguments: &Arguments, flags: Flags) -> anyhow::Result<ExitCode> {
    let settings = arguments.settings.load(flags)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let traces = {
        let _within = runtime.enter();
        telemetry::begin(&settings.log, settings.otlp.as_ref())?
    };
    if !settings.core_dumps {
        keep_memory_private();
    }
    let ended = runtime.block_on(serve(settings));
    if let Some(traces) = traces {
        traces.end();
    }
    // Everything is on disk; a read that still runs for a caller who is gone must not delay the
    // end.
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
    ended
}

/// Prevents core files, both those of the kernel and those of programs that it pipes cores to, and
/// keeps other processes of this user from attaching: keys and contents in clear are in memory.
fn keep_memory_private() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let kept = match getrlimit(Resource::Core) {
        // A sandbox that forbids setting limits may have set this one.
        set if set == none => Ok(()),
        _ => setrlimit(Resource::Core, none),
    };
    #[cfg(target_os = "linux")]
    let kept = kept.and(rustix::process::set_dumpable_behavior(
        rustix::process::DumpableBehavior::NotDumpable,
    ));
    if let Err(error) = kept {
        tracing::warn!(
            %error,
            "core files are not off: a crash may leave keys and contents in one (LimitCORE=0 in \
             systemd, ulimits.core in Docker)"
        );
    }
}

async fn serve(settings: Settings) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let key = settings.server.data_dir.join("server.key");
    let server = Server::start(settings.server, Arc::new(SystemClock)).await?;
    if server.created() {
        print_line(&format!(
            "created server {:?}: its secret is in {} (mode 0600), keep a copy",
            server.name(),
            key.display()
        ));
    }
    let lines = |what: &str, addresses: &[SocketAddr]| {
        let lines = addresses.iter().map(|address| format!("{what}{address}"));
        lines.collect::<Vec<_>>().join("\n")
    };
    if server.admin_address().is_some() {
        print_line(&lines(
            "metrics and health on http://",
            server.admin_addresses(),
        ));
    }
    // All addresses are printed at once: whoever waits for the first line may use each.
    print_line(&lines("listening on ", server.addresses()));
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("interrupted: stopping"),
        _ = server.failed() => {}
    }
    server.stop().await?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}
