//! Counting the instructions of a bench.

use std::fs;
use std::process::Command;

use crate::Result;

/// The argument with which this program runs one bench once.
pub(crate) const ONCE: &str = "--once";

const PROFILE: &str = "profile";

/// Where the counts come from: who reads a difference has to know whether these differ, too.
pub(crate) fn head() -> Result<String> {
    let version = |program: &str| output(Command::new(program).arg("--version"));
    let (rustc, valgrind) = (version("rustc")?, version("valgrind")?);
    Ok(format!("# {}, {}, {}", std::env::consts::ARCH, rustc.trim(), valgrind.trim()))
}

/// The instructions of all threads but the first, which prepares.
pub(crate) fn instructions(bench: &str) -> Result<u64> {
    let directory = tempfile::tempdir()?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--quiet", "--separate-threads=yes"]);
    valgrind.arg(format!("--callgrind-out-file={}", directory.path().join(PROFILE).display()));
    output(valgrind.arg(std::env::current_exe()?).args([ONCE, bench]))?;
    let mut sum = 0;
    for profile in fs::read_dir(&directory)? {
        let profile = profile?;
        // Named profile-02 for the second thread.
        if profile.file_name() != format!("{PROFILE}-01").as_str() {
            sum += total(&fs::read_to_string(profile.path())?)?;
        }
    }
    Ok(sum)
}

/// The sum of a thread's profile. The file without a number, which lists the others, has none.
fn total(profile: &str) -> Result<u64> {
    let number = profile.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap_or("0");
    Ok(number.trim().parse()?)
}

fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8(output.stdout)?)
    } else {
        Err(format!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
    }
}
