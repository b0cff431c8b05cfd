//! From a build to its exit code: the runtime, the signals, the last words.

use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use super::BuildInvocation;
use crate::dockerfile::{Diagnostic, Source};
use crate::execute::Interrupt;
use crate::progress::Progress;
use crate::{Error, ExitCode};

/// Builds, says what went wrong if something did, and gives the exit code.
pub(super) fn build(mut build: BuildInvocation) -> u8 {
    let progress = Arc::clone(&build.progress);
    let mut source = None;
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            progress.error(&format!("start the runtime: {error}"));
            return ExitCode::Io as u8;
        }
    };
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
