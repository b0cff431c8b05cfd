//! The program: a hidden role of ours, or what the command line asks for.

use std::process::ExitCode;

use yadokari::{cli, progress, sandbox};

#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if let Some(code) = sandbox::reexec(&args) {
        return code;
    }
    sandbox::sys::harden();
    let cli = match cli::parse(args) {
        Ok(cli) => cli,
        Err(error) => {
            // clap writes help to standard output and errors to standard error; there is nothing to do if it cannot.
            _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match cli::interpret(cli) {
        Ok(invocation) => ExitCode::from(cli::run(invocation)),
        Err(error) => {
            progress::Progress::new(progress::Level::Error).error(&error.to_string());
            ExitCode::from(error.exit_code())
        }
    }
}
