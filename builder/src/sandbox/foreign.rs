//! Whether the kernel executes programs of another architecture.
//!
//! It is asked by a trial, as with the drivers: `/proc/sys/fs/binfmt_misc` is not mounted in most containers, although
//! the handlers that the host registered there work in all of them. The program is the smallest one that there is: an
//! ELF header, and three instructions that leave with 0.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, Mode, OFlags};
use yadokari_registry::Platform;

/// The time that a trial has. An emulator needs some hundredths of a second.
const LIMIT: Duration = Duration::from_secs(5);

/// Whether commands of `platform` can be executed here: by the processor itself, or by the interpreter that the kernel
/// knows for them. An interpreter that is not on this file system may be on the image's, so it counts.
pub fn executes(platform: &Platform) -> bool {
    if platform.os != "linux" {
        return false;
    }
    let Some(machine) = MACHINES.iter().find(|machine| machine.name == platform.architecture) else { return false };
    match attempt(&machine.program()) {
        Ok(executed) => executed,
        Err(error) => error.raw_os_error() != Some(libc::ENOEXEC),
    }
}

/// Executes a program of a few bytes and says whether it left with 0.
fn attempt(program: &[u8]) -> io::Result<bool> {
    // The descriptor stays open across exec: an interpreter opens the program by its path.
    let memory = rustix::fs::memfd_create("yadokari-trial", MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("yadokari-trial", MemfdFlags::empty()))?;
    let mut memory = File::from(memory);
    memory.write_all(program)?;
    // What is open for writing cannot be executed.
    let reader = rustix::fs::open(format!("/proc/self/fd/{}", memory.as_raw_fd()), OFlags::RDONLY, Mode::empty())?;
    drop(memory);
    let mut command = Command::new(format!("/proc/self/fd/{}", reader.as_raw_fd()));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.success());
        }
        if start.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A processor, as ELF says it.
struct Machine {
    /// The architecture's name in images.
    name: &'static str,
    wide: bool,
    big_endian: bool,
    /// `e_machine`
    number: u16,
    /// `e_flags`
    flags: u32,
    /// `exit(0)`
    code: &'static [u8],
}

const MACHINES: [Machine; 10] = [
    // xor edi, edi; mov eax, 60; syscall
    machine("amd64", true, false, 62, 0, &[0x31, 0xff, 0xb8, 0x3c, 0, 0, 0, 0x0f, 0x05]),
    // xor ebx, ebx; mov eax, 1; int 0x80
    machine("386", false, false, 3, 0, &[0x31, 0xdb, 0xb8, 0x01, 0, 0, 0, 0xcd, 0x80]),
    // mov x0, 0; mov x8, 93; svc 0
    machine("arm64", true, false, 183, 0, &[0, 0, 0x80, 0xd2, 0xa8, 0x0b, 0x80, 0xd2, 0x01, 0, 0, 0xd4]),
    // mov r0, 0; mov r7, 1; svc 0
    machine("arm", false, false, 40, 0x0500_0000, &[0, 0, 0xa0, 0xe3, 0x01, 0x70, 0xa0, 0xe3, 0, 0, 0, 0xef]),
    // li a0, 0; li a7, 93; ecall
    machine("riscv64", true, false, 243, 0x5, &[0x13, 0x05, 0, 0, 0x93, 0x08, 0xd0, 0x05, 0x73, 0, 0, 0]),
    // li r0, 1; li r3, 0; sc
    machine("ppc64le", true, false, 21, 2, &[0x01, 0, 0, 0x38, 0, 0, 0x60, 0x38, 0x02, 0, 0, 0x44]),
    machine("ppc64", true, true, 21, 2, &[0x38, 0, 0, 0x01, 0x38, 0x60, 0, 0, 0x44, 0, 0, 0x02]),
    // lghi %r2, 0; svc 1
    machine("s390x", true, true, 22, 0, &[0xa7, 0x29, 0, 0, 0x0a, 0x01]),
    // li.w a0, 0; li.w a7, 93; syscall 0
    machine("loong64", true, false, 258, 0x43, &[0x04, 0, 0x80, 0x02, 0x0b, 0x74, 0x81, 0x02, 0, 0, 0x2b, 0]),
    // li v0, 5058; li a0, 0; syscall
    machine("mips64le", true, false, 8, 0x8000_0007, &[0xc2, 0x13, 0x02, 0x24, 0, 0, 0x04, 0x24, 0x0c, 0, 0, 0]),
];

const fn machine(
    name: &'static str,
    wide: bool,
    big_endian: bool,
    number: u16,
    flags: u32,
    code: &'static [u8],
) -> Machine {
    Machine { name, wide, big_endian, number, flags, code }
}

impl Machine {
    /// A static executable of one segment, which holds the whole file.
    fn program(&self) -> Vec<u8> {
        const BASE: u64 = 0x40_0000;
        let (header, segment): (u16, u16) = if self.wide { (64, 56) } else { (52, 32) };
        let start = u64::from(header + segment);
        let length = start + self.code.len() as u64;
        let mut file = vec![0x7f, b'E', b'L', b'F', 1 + u8::from(self.wide), 1 + u8::from(self.big_endian), 1];
        file.resize(16, 0);
        // e_type (an executable), e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags, e_ehsize, e_phentsize, e_phnum
        self.half(&mut file, 2);
        self.half(&mut file, self.number);
        self.word(&mut file, 1);
        [BASE + start, u64::from(header), 0].iter().for_each(|address| self.address(&mut file, *address));
        self.word(&mut file, self.flags);
        [header, segment, 1, 0, 0, 0].iter().for_each(|number| self.half(&mut file, *number));
        // PT_LOAD, to be read and executed. The flags stand second where addresses are wide, and seventh where not.
        self.word(&mut file, 1);
        if self.wide {
            self.word(&mut file, 5);
        }
        [0, BASE, BASE, length, length].iter().for_each(|address| self.address(&mut file, *address));
        if !self.wide {
            self.word(&mut file, 5);
        }
        self.address(&mut file, 0x1_0000);
        file.extend_from_slice(self.code);
        file
    }

    fn half(&self, file: &mut Vec<u8>, number: u16) {
        file.extend(if self.big_endian { number.to_be_bytes() } else { number.to_le_bytes() });
    }

    fn word(&self, file: &mut Vec<u8>, number: u32) {
        file.extend(if self.big_endian { number.to_be_bytes() } else { number.to_le_bytes() });
    }

    fn address(&self, file: &mut Vec<u8>, number: u64) {
        match (self.wide, self.big_endian) {
            (true, true) => file.extend(number.to_be_bytes()),
            (true, false) => file.extend(number.to_le_bytes()),
            // Nothing here is above four gigabytes.
            (false, _) => self.word(file, number as u32),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_programs_are_executed_and_nonsense_is_not() {
        assert!(executes(&Platform::host()));
        assert!(!executes(&"windows/amd64".parse().unwrap()));
        assert!(!executes(&"linux/sparc64".parse().unwrap()), "there is no trial for it");
        let nobodys = Machine { number: 0xfeed, ..machine("none", true, false, 0, 0, &[0]) };
        assert_eq!(attempt(&nobodys.program()).unwrap_err().raw_os_error(), Some(libc::ENOEXEC));
    }

    #[test]
    fn a_program_that_fails_is_no_success() {
        let host = MACHINES.iter().find(|machine| machine.name == Platform::host().architecture).unwrap();
        // An instruction that no processor here has.
        let broken = Machine { code: &[0xff; 8], ..*host };
        assert!(!attempt(&broken.program()).unwrap());
    }

    #[test]
    fn programs_have_the_size_of_their_headers() {
        for machine in &MACHINES {
            let headers = if machine.wide { 120 } else { 84 };
            assert_eq!(machine.program().len(), headers + machine.code.len(), "{}", machine.name);
        }
    }
}
