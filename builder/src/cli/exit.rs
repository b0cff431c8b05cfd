//! From a build to its exit code: the runtime, the signals, the last words.

use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::args::Format;
use super::{BuildInvocation, CheckInvocation, say};
use crate::dockerfile::{Diagnostic, Source};
use crate::execute::Interrupt;
use crate::progress::Progress;
use crate::{Error, ExitCode};

/// Builds, says what went wrong if something did, and gives the exit code.
pub(super) fn build(mut build: BuildInvocation) -> u8 {
    let progress = Arc::clone(&build.progress);
    let mut source = None;
    let Some(runtime) = runtime(&progress) else { return ExitCode::Io as u8 };
    let interrupt = Interrupt::default();
    let result = runtime.block_on(async {
        forward_signals(&interrupt, &progress);
        let line = async {
            build.prepare().await?;
            source = Some(build.request.dockerfile.clone());
            build.execute(interrupt.clone()).await
        };
        tokio::select! {
            result = line => result,
            signal = interrupt.triggered() => Err(Error::Interrupted(signal)),
        }
    });
    // What still runs is a transfer that nobody waits for.
    runtime.shutdown_background();
    match result {
        Ok(_) => 0,
        Err(error) => {
            report(&error, source.as_ref(), &progress);
            error.exit_code()
        }
    }
}

/// Looks at the Dockerfile, says what is found, and gives the exit code.
pub(super) fn check(check: CheckInvocation) -> u8 {
    let CheckInvocation { mut build, format } = check;
    let progress = Arc::clone(&build.progress);
    let Some(runtime) = runtime(&progress) else { return ExitCode::Io as u8 };
    let checked = runtime.block_on(async {
        build.prepare().await?;
        Ok(crate::check::check(&build.request, &progress).await)
    });
    runtime.shutdown_background();
    let found = match checked {
        Ok(found) => found,
        Err(error) => {
            report(&error, None, &progress);
            return Error::exit_code(&error);
        }
    };
    let request = &build.request;
    let said = match format {
        Format::Text => say(&found.text(&request.dockerfile)),
        Format::Json => say(&found.json(&request.dockerfile)),
    };
    if said == 0 { found.exit_code() } else { said }
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
        (Error::Remote { at: Some(span), .. }, Some(source)) => {
            progress.error(&Diagnostic::new(error.to_string()).at(*span).render(source, false));
        }
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
