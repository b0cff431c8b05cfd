//! The executable as it is shipped: static, the same wherever it is built, and with papers that say what it is made of.

mod audit;
mod certificates;
mod commit;
mod cyclonedx;
mod inventory;
mod licences;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::command::{Output, PATIENCE, capture, command, find, line};
use crate::error::{At, Error, Result};
use crate::{cache, run, workspace};

pub use commit::Commit;
pub use inventory::{Inventory, Package};

pub(crate) use certificates::certificates;

/// What the executable is linked with, always statically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Libc {
    /// musl: what is shipped.
    Musl,
    /// glibc, where the musl target cannot be had.
    Gnu,
}

/// A build of the executable from a checkout.
#[derive(Clone, Debug)]
pub struct Release {
    source: PathBuf,
    directory: PathBuf,
    libc: Libc,
    environment: Vec<(String, OsString)>,
}

/// The executable, and what goes into the image beside it.
#[derive(Clone, Debug)]
pub struct Shipped {
    /// The executable, which names what it is linked from in the form of cargo-auditable.
    pub executable: PathBuf,
    /// The same as a bill of materials in CycloneDX's JSON.
    pub materials: String,
    /// The licences of all that.
    pub licences: String,
}

impl Libc {
    /// The toolchain's name of what is compiled for.
    pub fn target(self) -> String {
        let libc = if self == Self::Musl { "musl" } else { "gnu" };
        format!("{}-unknown-linux-{libc}", std::env::consts::ARCH)
    }

    /// Whether the toolchain has the target, or could fetch it.
    pub fn obtain(self) -> bool {
        let has = || sysroot().is_ok_and(|root| root.join("lib/rustlib").join(self.target()).join("lib").is_dir());
        has() || (run("rustup", ["target", "add", &self.target()]).is_ok() && has())
    }

    /// The one that can be had: musl, if possible.
    pub fn available() -> Self {
        if Self::Musl.obtain() { Self::Musl } else { Self::Gnu }
    }

    fn name(self) -> &'static str {
        if self == Self::Musl { "musl" } else { "glibc" }
    }

    fn compiler(self) -> &'static str {
        if self == Self::Musl { "musl-gcc" } else { "cc" }
    }
}

impl Release {
    /// From this workspace, in its target directory.
    pub fn here(libc: Libc) -> Self {
        Self::new(&workspace(), &cache::target(), libc)
    }

    /// From the checkout in `source`, in the target directory `directory`.
    pub fn new(source: &Path, directory: &Path, libc: Libc) -> Self {
        let (source, directory) = (source.to_owned(), directory.to_owned());
        Self { source, directory, libc, environment: Vec::new() }
    }

    /// With a variable of the environment of its own.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Builds it, and writes its papers.
    pub fn build(&self) -> Result<Shipped> {
        let metadata = self.metadata()?;
        let (target, variable) = (self.libc.target(), self.libc.target().replace('-', "_"));
        let prefixes = self.prefixes(&metadata)?;
        let mut cargo = self.cargo("build");
        cargo.args(["--release", "--package", "yadokari", "--message-format", "json-render-diagnostics"]);
        cargo.args(["--target", &target, "--target-dir"]).arg(&self.directory);
        cargo.env("CARGO_ENCODED_RUSTFLAGS", self.rust_flags(&prefixes).join("\u{1f}"));
        cargo.env(format!("CC_{variable}"), self.libc.compiler());
        cargo.env(format!("CFLAGS_{variable}"), c_flags(&prefixes).join(" "));
        let line = line(&cargo);
        let said = capture(&mut cargo, PATIENCE * 6)?;
        // The messages are for programs: of a failure people read the rest.
        let messages = if said.success() { said.stdout.clone() } else { String::new() };
        Output { stdout: String::new(), ..said }.ok(&line)?;

        let built = self.directory.join(&target);
        let lock = self.source.join("Cargo.lock");
        let lock = fs::read_to_string(&lock).at("read", &lock)?;
        let inventory = Inventory::read(&messages, &built, &metadata, &lock);
        let inventory = inventory.map_err(|detail| Error::Json { path: built.clone(), detail })?;
        let executable = built.join("release/executor");
        audit::embed(&inventory, &built.join("release/yadokari"), &executable)?;
        if !is_static(&fs::read(&executable).at("read", &executable)?) {
            return Err(Error::NotStatic { program: executable });
        }
        let materials = cyclonedx::write(&inventory, &executable, self.libc, &self.toolchain()?)?;
        let licences = licences::write(&inventory, self.libc)?;
        Ok(Shipped { executable, materials, licences })
    }

    /// The programs that compile and link, each with its version: what has to be the same for the same bytes.
    pub fn toolchain(&self) -> Result<Vec<(&'static str, String)>> {
        let version = |program: &str| -> Result<String> {
            let first = run(program, ["--version"])?.stdout.lines().next().unwrap_or_default().to_owned();
            Ok(first)
        };
        Ok(vec![("rustc", version(&rustc())?), ("cc", version(self.libc.compiler())?), ("ld", version("ld")?)])
    }

    /// What cargo says of the packages that may take part.
    fn metadata(&self) -> Result<Value> {
        let mut cargo = self.cargo("metadata");
        cargo.args(["--format-version", "1", "--filter-platform", &self.libc.target()]);
        let line = line(&cargo);
        let said = capture(&mut cargo, PATIENCE)?.ok(&line)?;
        let json = |e: serde_json::Error| Error::Json { path: self.source.clone(), detail: e.to_string() };
        serde_json::from_str(&said.stdout).map_err(json)
    }

    fn cargo(&self, subcommand: &str) -> Command {
        let mut cargo = command(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
        cargo.current_dir(&self.source).args([subcommand, "--locked"]);
        cargo.envs(self.environment.iter().map(|(name, value)| (name, value)));
        cargo
    }

    /// The directories that are other ones on another machine, and what stands for each. The last that fits counts.
    fn prefixes(&self, metadata: &Value) -> Result<Vec<(PathBuf, String)>> {
        let verbose = run(&rustc(), ["-vV"])?.stdout;
        let commit = verbose.lines().find_map(|line| line.strip_prefix("commit-hash: ")).unwrap_or("unknown");
        // Where the sources of the standard library are installed, it is they that are named.
        let library = (sysroot()?.join("lib/rustlib/src/rust"), format!("/rustc/{commit}"));
        let mut prefixes = vec![(self.source.clone(), "/yadokari".to_owned()), library];
        let mut packages: Vec<_> = inventory::directories(metadata).collect();
        packages.sort();
        packages.dedup();
        prefixes.extend(packages.into_iter().map(|directory| (directory, "/crates".to_owned())));
        prefixes.push((self.directory.clone(), "/target".to_owned()));
        // A compiler that asks where it is hears of no symbolic link on the way.
        let real = |(from, to): &(PathBuf, String)| Some((from.canonicalize().ok()?, to.clone()));
        let real: Vec<_> = prefixes.iter().filter_map(real).filter(|prefix| !prefixes.contains(prefix)).collect();
        Ok(real.into_iter().chain(prefixes).collect())
    }

    fn rust_flags(&self, prefixes: &[(PathBuf, String)]) -> Vec<String> {
        // Only with --target does this spare the build scripts, which are not static.
        let libc = (self.libc == Libc::Gnu).then(|| "-Ctarget-feature=+crt-static".to_owned());
        let remap = |(from, to): &(PathBuf, String)| format!("--remap-path-prefix={}={to}", from.display());
        libc.into_iter().chain(prefixes.iter().map(remap)).collect()
    }
}

fn c_flags(prefixes: &[(PathBuf, String)]) -> Vec<String> {
    prefixes.iter().map(|(from, to)| format!("-ffile-prefix-map={}={to}", from.display())).collect()
}

fn rustc() -> String {
    std::env::var("RUSTC")
        .ok()
        .or_else(|| find("rustc").map(|path| path.to_string_lossy().into_owned()))
        .unwrap_or_default()
}

fn sysroot() -> Result<PathBuf> {
    run(&rustc(), ["--print", "sysroot"]).map(|output| PathBuf::from(output.stdout.trim()))
}

/// Whether a 64-bit little-endian ELF file names no interpreter, that is, no dynamic linker.
pub fn is_static(elf: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let bytes = |at: usize, size: usize| elf.get(at..at + size).unwrap_or_default();
    let number = |at, size| bytes(at, size).iter().rev().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte));
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let kinds = (0..count).map(|n| number(table + n * size, 4));
    elf.starts_with(b"\x7fELF\x02\x01") && count > 0 && !kinds.into_iter().any(|kind| kind == INTERPRETER as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packages;

    #[test]
    fn busybox_is_static_and_this_test_is_not() {
        packages::ensure().unwrap();
        assert!(is_static(&fs::read(find("busybox").unwrap()).unwrap()));
        assert!(!is_static(&fs::read(std::env::current_exe().unwrap()).unwrap()));
        assert!(!is_static(b"#!/bin/sh\n"));
    }
}
