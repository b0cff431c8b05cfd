//! Flags and variables of Kaniko's that nothing here depends on, and why not; and those that cannot be carried out.

use std::env;
use std::ffi::OsStr;
use std::path::PathBuf;

use clap::builder::TypedValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Args, Command};
use yadokari_layers::RelPath;

use super::args::{Environment, path, truth};
use crate::Error;

/// What pipelines give Kaniko, and what changes nothing here. A build says so of what it was given.
#[derive(Debug, Args)]
pub(super) struct KanikoFlags {
    /// Not needed: a change is found by all that the kernel says of a file, and no other way is faster.
    #[arg(long, alias = "snapshotMode", value_name = "full|redo|time", value_parser = snapshot_mode)]
    snapshot_mode: Option<String>,
    /// Not needed: a RUN has a root of its own wherever the container allows it.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = truth)]
    use_new_run: Option<bool>,
    /// The same as --squash.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    pub(super) single_snapshot: bool,
    /// Not needed: no layer is in memory as a whole, compressed or not.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = truth)]
    compressed_caching: Option<bool>,
    /// Not needed: stages that the target does not need are never built.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = truth)]
    skip_unused_stages: Option<bool>,
    /// Not needed: the config and the history always have every instruction.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = truth)]
    force_build_metadata: Option<bool>,
    /// Not needed: what a RUN leaves below /var/run is in the layer, as with Docker, and what is mounted there is not.
    #[arg(long, alias = "whitelist-var-run", action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = truth)]
    ignore_var_run: Option<bool>,
    /// Not needed: the container's own files are put aside while a RUN needs their place, and are no part of the image.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = truth, env = "KANIKO_PRE_CLEANUP")]
    pre_cleanup: Option<bool>,
    /// Not needed: a build does not change the context.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_parser = truth, env = "KANIKO_PRESERVE_CONTEXT")]
    preserve_context: Option<bool>,
    /// Refused: no build leaves the image's files in the container.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    materialize: bool,
    /// Refused: contexts from buckets are not carried out yet.
    #[arg(long, short = 'b', hide = true, default_value = "")]
    bucket: String,
    /// Leave this path, and what is below it, out of the layers of RUN steps. What is mounted in the container need not be named:
    /// it is no part of any layer. Repeatable.
    #[arg(long, value_name = "PATH")]
    ignore_path: Vec<String>,
    /// Build nothing: say which steps a build would execute.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    pub(super) dryrun: bool,
    /// Keep layers and stages in this directory during the build, as KANIKO_DIR says, too; --work-dir is the same
    /// without a directory `work` of its own.
    #[arg(long, value_name = "DIR", value_parser = path())]
    kaniko_dir: Option<PathBuf>,
    /// Nothing: callers write `"$EXTRA_ARGS"` where there may be none.
    #[arg(hide = true, value_parser = Empty)]
    empty: Vec<()>,
}

/// Reads an argument that is empty; any other is one that nobody expects.
#[derive(Debug, Clone)]
struct Empty;

impl TypedValueParser for Empty {
    type Value = ();

    fn parse_ref(&self, command: &Command, _: Option<&Arg>, value: &OsStr) -> Result<(), clap::Error> {
        if value.is_empty() {
            return Ok(());
        }
        let mut error = clap::Error::new(ErrorKind::UnknownArgument).with_cmd(command);
        error.insert(ContextKind::InvalidArg, ContextValue::String(value.to_string_lossy().into_owned()));
        Err(error)
    }
}

/// What Kaniko compares of a file; or nothing, since callers write `--snapshotMode=$VARIABLE`.
fn snapshot_mode(text: &str) -> Result<String, String> {
    match text {
        "full" | "redo" | "time" | "" => Ok(text.to_owned()),
        _ => Err("write full, redo or time".into()),
    }
}

/// The one of Kaniko's switches that says nothing about what a build makes.
const NO_HTTP2: &str = "FF_KANIKO_DISABLE_HTTP2";

/// Variables that change nothing here, each with the reason. A `*` stands for the rest of a name.
const VARIABLES: [(&str, &str); 5] = [
    ("FF_KANIKO_*", "there are no such switches: what Docker does is always done"),
    ("SNAPSHOT_TIMEOUT_DURATION", "to look what has changed takes no time that would need a limit"),
    ("KANIKO_PRINT_PLAN", "--dryrun and `yadokari plan` print it"),
    ("KANIKO_IGNORE_ASSERTIONS", "what should not be is always an error"),
    ("KANIKO_TELEMETRY_*", "nothing is reported anywhere"),
];

impl KanikoFlags {
    /// What is refused.
    pub(super) fn refuse(&self) -> Result<(), Error> {
        if self.materialize {
            let message =
                "no build leaves the image's files in the container; --oci-layout-path or --tar-path write the \
                           image to a place where they can be unpacked"
                    .into();
            return Err(Error::Usage { flag: "--materialize", message });
        }
        if !self.bucket.is_empty() {
            let message = "contexts from buckets are not carried out yet; fetch it in a step before, and give its \
                           directory as --context"
                .into();
            return Err(Error::Usage { flag: "--bucket", message });
        }
        Ok(())
    }

    /// `--ignore-path`
    pub(super) fn ignored(&self) -> Result<Vec<RelPath>, Error> {
        let given = self.ignore_path.iter().filter(|path| !path.is_empty());
        let path = |text: &String| match RelPath::new(text.trim_start_matches('/').trim_end_matches('/')) {
            Ok(path) if !path.is_root() => Ok(path),
            _ => Err(Error::Usage { flag: "--ignore-path", message: format!("'{text}' names nothing in an image") }),
        };
        given.map(path).collect()
    }

    /// `--kaniko-dir`: where layers and stages are kept.
    pub(super) fn work_dir(&self) -> Option<PathBuf> {
        super::given(&self.kaniko_dir).map(|directory| directory.join("work"))
    }

    /// A line about each flag that was given and is not needed, and about each of the variables that are set.
    pub(super) fn notes(&self, variables: impl Iterator<Item = String>) -> Vec<String> {
        let flags = [
            (
                self.snapshot_mode.as_deref().is_some_and(|mode| !mode.is_empty()),
                "--snapshot-mode",
                "a change is found by all that the kernel says of a file, and no other way is faster",
            ),
            (
                self.use_new_run.is_some(),
                "--use-new-run",
                "a RUN has a root of its own wherever the container allows it",
            ),
            (self.compressed_caching.is_some(), "--compressed-caching", "no layer is in memory as a whole"),
            (self.skip_unused_stages.is_some(), "--skip-unused-stages", "what the target does not need is never built"),
            (
                self.force_build_metadata.is_some(),
                "--force-build-metadata",
                "the config and the history always have every instruction",
            ),
            (
                self.ignore_var_run.is_some(),
                "--ignore-var-run",
                "what a RUN leaves below /var/run is in the layer, and what is mounted there is not",
            ),
            (self.pre_cleanup.is_some(), "--pre-cleanup", "the container's own files are no part of the image"),
            (self.preserve_context.is_some(), "--preserve-context", "a build does not change the context"),
        ];
        let flags = flags.into_iter().filter(|(is_given, ..)| *is_given).map(|(_, flag, why)| (flag.to_owned(), why));
        let mut variables: Vec<(String, &str)> = variables.filter_map(unused).collect();
        variables.sort();
        // Whoever sets one of a kind often sets all of them.
        variables.dedup_by_key(|(_, why)| *why);
        flags.chain(variables).map(|(name, why)| format!("{name} is not needed: {why}")).collect()
    }
}

/// A variable that changes nothing here, and why.
fn unused(name: String) -> Option<(String, &'static str)> {
    if name == NO_HTTP2 {
        return None;
    }
    let is = |pattern: &str| match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    };
    let why = VARIABLES.iter().find(|(pattern, _)| is(pattern)).map(|(_, why)| *why)?;
    Some((name, why))
}

/// The names of all variables of the environment.
pub(super) fn variables() -> impl Iterator<Item = String> {
    env::vars_os().filter_map(|(name, _)| name.into_string().ok())
}

/// Whether HTTP/2 is not wanted: Kaniko's own switch, and that of the language that it is written in.
pub(super) fn http1(env: Environment<'_>) -> bool {
    let switched = env(NO_HTTP2).is_some_and(|value| truth(&value) == Ok(true));
    let go = env("GODEBUG").unwrap_or_default();
    switched || go.split(',').any(|setting| setting.trim() == "http2client=0")
}

/// The user agent, with what UPSTREAM_CLIENT_TYPE says of whoever started us.
pub(super) fn user_agent(upstream: Option<String>) -> String {
    let own = format!("yadokari/{}", env!("CARGO_PKG_VERSION"));
    match upstream.filter(|upstream| !upstream.is_empty()) {
        Some(upstream) => format!("{own},{upstream}"),
        None => own,
    }
}
