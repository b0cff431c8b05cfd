//! From a build to its exit code: the runtime, the signals, the last words.

use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::args::Format;
use super::{BuildInvocation, LookInvocation, say};
use crate::cache::Outlook;
use crate::dockerfile::Source;
use crate::execute::Interrupt;
use crate::progress::Progress;
use crate::{Error, ExitCode, Request};

/// Builds, says what went wrong if something did, and gives the exit code.
pub(super) fn build(mut build: BuildInvocation) -> u8 {
    let (progress, page) = (Arc::clone(&build.progress), build.report.take());
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
    progress.finish();
    let code = match result {
        Ok(_) => 0,
        Err(error) => {
            report(&error, source.as_ref(), &progress);
            error.exit_code()
        }
    };
    match page.map(|(path, page)| (std::fs::write(&path, page.page()), path)) {
        Some((Err(source), path)) => {
            let error = Error::Host { operation: "write", path, source };
            report(&error, None, &progress);
            if code == 0 { error.exit_code() } else { code }
        }
        _ => code,
    }
}

/// Looks at the Dockerfile, says what is found, and gives the exit code.
pub(super) fn check(look: LookInvocation) -> u8 {
    let LookInvocation { build, format } = look;
    let found = with_request(build, async |request, progress| Ok(crate::check::check(request, progress).await));
    finish(found, |(found, source)| {
        let text = match format {
            Format::Text => found.text(&source),
            Format::Json => found.json(&source),
        };
        (text, found.exit_code())
    })
}

/// Looks at the cache, says what a build would find there, and gives the exit code.
pub(super) fn plan(look: LookInvocation) -> u8 {
    outlook(look, Outlook::exit_code)
}

/// The same, for whoever wants to know what would be done and not whether anything would be.
pub(super) fn dry_run(look: LookInvocation) -> u8 {
    outlook(look, |_| 0)
}

fn outlook(look: LookInvocation, code: impl FnOnce(&Outlook) -> u8) -> u8 {
    let LookInvocation { build, format } = look;
    let outlook = with_request(build, async |request, progress| crate::look_ahead(request, progress).await);
    finish(outlook, |(outlook, _)| {
        let text = match format {
            Format::Text => outlook.text(),
            Format::Json => outlook.json(),
        };
        (text, code(&outlook))
    })
}

/// Prints the content hash.
pub(super) fn key(build: BuildInvocation) -> u8 {
    let key = with_request(build, async |request, progress| crate::content_key(request, progress).await);
    finish(key, |(key, _)| (key.hex(), 0))
}

/// Does what is no build, says what went wrong if something did, and gives the exit code.
pub(super) fn task(progress: &Arc<Progress>, work: impl Future<Output = Result<u8, Error>>) -> u8 {
    let Some(runtime) = runtime(progress) else { return ExitCode::Io as u8 };
    let interrupt = Interrupt::default();
    let result = runtime.block_on(async {
        forward_signals(&interrupt, progress);
        tokio::select! {
            result = work => result,
            signal = interrupt.triggered() => Err(Error::Interrupted(signal)),
        }
    });
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(error) => {
            report(&error, None, progress);
            error.exit_code()
        }
    }
}

/// Asks something of the build that `build` would be, once its sources are there; the exit code where that fails.
fn with_request<T>(
    mut build: BuildInvocation,
    ask: impl AsyncFnOnce(&Request, &Arc<Progress>) -> Result<T, Error>,
) -> Result<(T, Source), u8> {
    let progress = Arc::clone(&build.progress);
    let Some(runtime) = runtime(&progress) else { return Err(ExitCode::Io as u8) };
    let mut source = None;
    let result = runtime.block_on(async {
        build.prepare().await?;
        source = Some(build.request.dockerfile.clone());
        ask(&build.request, &progress).await
    });
    runtime.shutdown_background();
    match result {
        Ok(answer) => Ok((answer, build.request.dockerfile)),
        Err(error) => {
            report(&error, source.as_ref(), &progress);
            Err(error.exit_code())
        }
    }
}

/// Prints an answer; its exit code, if it could be printed.
fn finish<T>(answer: Result<T, u8>, show: impl FnOnce(T) -> (String, u8)) -> u8 {
    match answer.map(show) {
        Err(code) => code,
        Ok((text, code)) => match say(&text) {
            0 => code,
            failed => failed,
        },
    }
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
    match (error.diagnostic(), source) {
        (Some(diagnostic), Some(source)) => progress.error(&diagnostic.render(source, false)),
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
