//! A session of the other builders: all cases in one, two at a time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::room::{Room, put};
use super::{Builder, Verdict, Verdicts};
use crate::command::{capture, line};
use crate::dialect::{BaseLayers, Case, File, Snapshot};
use crate::error::{At, Result};
use crate::scratch;

/// How long all the cases may take.
const LIMIT: Duration = Duration::from_secs(900);

/// The jobs, three at a time. Each leaves its output and its exit code beside itself.
const JOBS: &str = r#"
ls /share/jobs/*.sh | xargs -P 3 -n 1 sh -c 'timeout 120 sh "$0" >"$0.log" 2>&1; echo $? >"$0.code"'
"#;

/// Builds `cases` with all builders.
pub(super) fn run(
    root: &Path,
    cases: &[&Case],
    common: &[File],
    bases: &BaseLayers,
    host: &str,
) -> Result<BTreeMap<String, Verdicts>> {
    let room = Room::create(root, host, scratch::directory()?)?;
    let share = room.share();
    for name in ["jobs", "out"] {
        fs::create_dir(share.join(name)).at("create", share.join(name))?;
    }
    for case in cases {
        let context = share.join("cases").join(&case.name);
        fs::create_dir_all(&context).at("create", &context)?;
        fs::set_permissions(&context, fs::Permissions::from_mode(0o755)).at("chmod", &context)?;
        case.write(common, &context)?;
        for &builder in Builder::of(case) {
            put(&job(&share, case, builder), &script(case, builder))?;
        }
    }
    let mut session = room.session(JOBS, Some(""), None)?;
    let line = line(&session);
    capture(&mut session, LIMIT)?.ok(&line)?;
    let mut found = BTreeMap::new();
    for case in cases {
        let verdict = |&builder: &Builder| Ok((builder, verdict(&share, case, builder, bases)?));
        found.insert(case.name.clone(), Builder::of(case).iter().map(verdict).collect::<Result<_>>()?);
    }
    Ok(found)
}

fn verdict(share: &Path, case: &Case, builder: Builder, bases: &BaseLayers) -> Result<Verdict> {
    let job = job(share, case, builder).to_string_lossy().into_owned();
    let code = fs::read_to_string(format!("{job}.code")).unwrap_or_default();
    let out = share.join("out").join(format!("{}.{}", case.name, builder.word()));
    if code.trim() != "0" {
        let log = fs::read(format!("{job}.log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        return Ok(Verdict { snapshot: Snapshot::refused(), log });
    }
    Ok(Verdict { snapshot: Snapshot::of(&out, bases)?, log: String::new() })
}

fn job(share: &Path, case: &Case, builder: Builder) -> std::path::PathBuf {
    share.join("jobs").join(format!("{}.{}.sh", case.name, builder.word()))
}

/// What builds a case.
fn script(case: &Case, builder: Builder) -> String {
    let (name, word) = (&case.name, builder.word());
    let options: Vec<String> = case.options.iter().map(|option| quoted(option)).collect();
    let options = options.join(" ");
    let command = match builder {
        Builder::BuildKit => format!(
            "/usr/libexec/docker/cli-plugins/docker-buildx build --progress=plain --no-cache --provenance=false --network=host \
             --output type=oci,tar=false,compression=uncompressed,dest=/share/out/{name}.{word}"
        ),
        Builder::Buildah => format!(
            "buildah bud --layers=false --format=docker --network=host --identity-label=false --tag=dir:/share/out/{name}.{word}"
        ),
    };
    let file = quoted(&format!("/share/cases/{name}/{}", case.dockerfile));
    format!("cd /share/cases/{name}\nexec {command} {options} --file {file} .\n")
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}
