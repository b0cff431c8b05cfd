//! Which ids a user namespace gets.

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::error::{Result, Syscall};

/// How the ids inside a user namespace map to those outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum IdMap {
    /// A billion ids that nobody else uses. A RUN can then not signal the builder, nor write what belongs to the
    /// container's root.
    Shifted,
    /// The ids of a container that is in a user namespace of 65,536 ids itself, all but its root.
    Range,
    /// All ids, unchanged: the last resort.
    Identity,
}

impl IdMap {
    /// The order of preference.
    pub(super) const ALL: [Self; 3] = [Self::Shifted, Self::Range, Self::Identity];

    /// The id outside that is 0 inside.
    pub(super) fn root(self) -> u32 {
        match self {
            Self::Shifted => 1 << 30,
            Self::Range => 1,
            Self::Identity => 0,
        }
    }

    fn count(self) -> u32 {
        match self {
            Self::Shifted => 1 << 30,
            Self::Range => 65_535,
            Self::Identity => u32::MAX,
        }
    }

    /// Writes the maps of a process that has just entered a new user namespace. Only the parent can: the process itself
    /// has no capability outside any more, and could map nothing but its own id.
    pub(super) fn write(self, pid: Pid) -> Result<()> {
        // An identity map must not claim ids that the container's own namespace does not have.
        let count = if self == Self::Identity { own_count()? } else { self.count() };
        let line = format!("0 {} {count}\n", self.root());
        for file in ["uid_map", "gid_map"] {
            let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
            std::fs::write(&path, &line).on("write", format!("'{}' to {file}", line.trim_end()))?;
        }
        Ok(())
    }
}

/// How many ids from 0 on the namespace that we are in has.
fn own_count() -> Result<u32> {
    let text = std::fs::read_to_string("/proc/self/uid_map").on("read", "/proc/self/uid_map")?;
    let first = text.lines().next().unwrap_or_default();
    let mut fields = first.split_whitespace().map(|field| field.parse::<u32>().unwrap_or(0));
    let (start, count) = (fields.next(), fields.nth(1));
    Ok(if start == Some(0) { count.unwrap_or(1) } else { 1 })
}
