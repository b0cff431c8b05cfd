//! From a build to its exit code: the runtime, the signals, the last words.

use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::args::Format;
use super::{BuildInvocation, CheckInvocation, say};
use crate::dockerfile::Source;
use crate::execute::Interrupt;
use crate::progress::Progress;
use crate::{Error, ExitCode};

/// Builds, says what went wrong if something did, and gives the exit code.
pub(super) fn build(build: BuildInvocation) -> u8 {
    let progress = Arc::clone(&build.progress);
    let source = build.request.dockerfile.clone();
    let Some(runtime) = runtime(&progress) else { return ExitCode::Io as u8 };
    let interrupt = Interrupt::default();
    let result = runtime.block_on(async {
        forward_signals(&interrupt, &progress);
        tokio::select! {
            result = build.execute(interrupt.clone()) => result,
            signal = interrupt.triggered() => Err(Error::Interrupted(signal)),
        }
    });
    // What still runs is a transfer that nobody waits for.
    runtime.shutdown_background();
    match result {
        Ok(_) => 0,
        Err(error) => {
            report(&error, Some(&source), &progress);
            error.exit_code()
        }
    }
}

/// Looks at the Dockerfile, says what is found, and gives the exit code.
pub(super) fn check(check: CheckInvocation) -> u8 {
    let CheckInvocation { request, progress, format } = check;
    let Some(runtime) = runtime(&progress) else { return ExitCode::Io as u8 };
    let report = runtime.block_on(crate::check::check(&request, &progress));
    runtime.shutdown_background();
    let said = match format {
        Format::Text => say(&report.text(&request.dockerfile)),
        Format::Json => say(&report.json(&request.dockerfile)),
    };
    if said == 0 { report.exit_code() } else { said }
}

fn runtime(progress: &Progress) -> Option<Runtime> {
    match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => Some(runtime),
        Err(error) => {
            progress.error(&format!("start the runtime: {error}"));
            None
        }
    }
}

/// Says what went wrong: with line and caret where the Dockerfile is to blame.
fn report(error: &Error, source: Option<&Source>, progress: &Progress) {
    match (error, source) {
        (Error::Dockerfile(diagnostic), Some(source)) => progress.error(&diagnostic.render(source, false)),
        _ => progress.error(&error.to_string()),
    }
}

/// Lets SIGINT and SIGTERM end the build in order. A second one does no more than the first: what must be put back is
/// put back.
fn forward_signals(interrupt: &Interrupt, progress: &Arc<Progress>) {
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let Ok(mut signals) = signal(kind) else { continue };
        let (interrupt, progress) = (interrupt.clone(), Arc::clone(progress));
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                progress.warning(&format!("signal {}: stopping", kind.as_raw_value()));
                interrupt.trigger(kind.as_raw_value());
            }
        });
    }
}
