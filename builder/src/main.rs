//! Main.

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(code) = yadokari::sandbox::reexec(&args) {
        return code;
    }
    yadokari::sandbox::sys::harden();
    ExitCode::SUCCESS
}
