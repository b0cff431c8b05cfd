//! Which machine an image is for.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// An operating system, a processor architecture in Go's spelling, and its variant where that matters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `v7` of `arm`; `None` where the architecture's usual one is meant.
    pub variant: Option<String>,
}

impl Platform {
    /// The machine we run on.
    pub fn host() -> Self {
        Self::normal(std::env::consts::OS, std::env::consts::ARCH, None)
    }

    /// How well an image for `offered` runs here: `None` not at all, else higher is better.
    ///
    /// An `arm` machine runs older variants too; an `amd64` machine is taken to have only the features it was asked
    /// for, so that `v2` and `v3` images are chosen only on request. Where nothing else is offered, `386` does for
    /// `amd64`, and `arm` for `arm64`.
    pub fn suits(&self, offered: &Self) -> Option<u32> {
        const SAME_ARCHITECTURE: u32 = 100;
        if self.os != offered.os {
            return None;
        }
        if self.architecture != offered.architecture {
            return match (&self.architecture[..], &offered.architecture[..]) {
                ("amd64", "386") => Some(0),
                ("arm64", "arm") => offered.level().filter(|level| *level <= 8),
                _ => None,
            };
        }
        match (self.level(), offered.level()) {
            (Some(wanted), Some(offered)) => (offered <= wanted).then_some(SAME_ARCHITECTURE + offered),
            _ => (self.variant.is_none() || self.variant == offered.variant).then_some(SAME_ARCHITECTURE),
        }
    }

    /// Whether both name the same operating system and architecture, whatever the variant.
    pub fn is_same_machine(&self, other: &Self) -> bool {
        self.os == other.os && self.architecture == other.architecture
    }

    /// The variant as a number, with the architecture's usual one where none is given.
    fn level(&self) -> Option<u32> {
        let usual = match self.architecture.as_str() {
            "arm" => 7,
            "arm64" => 8,
            "amd64" => 1,
            _ => return None,
        };
        match &self.variant {
            None => Some(usual),
            Some(variant) => variant.strip_prefix('v').and_then(|number| number.parse().ok()),
        }
    }

    /// The one spelling of a platform, which containerd's rules give: what is usual for an architecture is left out,
    /// but for `arm`, whose variant is always said.
    pub fn normal(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let (os, architecture) = (os.to_ascii_lowercase(), architecture.to_ascii_lowercase());
        let variant = variant.map(str::to_ascii_lowercase);
        let os = if os == "macos" { "darwin".to_owned() } else { os };
        let (architecture, implied) = match &architecture[..] {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "x86" | "i386" | "i686" => ("386", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "powerpc64" => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        let variant = implied.or(variant.as_deref()).filter(|variant| !variant.is_empty());
        let variant = match (architecture, variant) {
            ("arm64", Some("8" | "v8")) | ("amd64", Some("v1")) | ("386", _) => None,
            ("arm", None) => Some("v7".to_owned()),
            ("arm", Some(number @ ("5" | "6" | "7" | "8"))) => Some(format!("v{number}")),
            (_, variant) => variant.map(str::to_owned),
        };
        Self { os, architecture: architecture.into(), variant }
    }
}

/// The operating systems that Go knows, and so images do.
const SYSTEMS: [&str; 16] = [
    "linux",
    "windows",
    "darwin",
    "freebsd",
    "netbsd",
    "openbsd",
    "dragonfly",
    "solaris",
    "illumos",
    "aix",
    "android",
    "ios",
    "plan9",
    "zos",
    "js",
    "wasip1",
];

/// The architectures that Go knows, and so images do; the usual ones first.
const ARCHITECTURES: [&str; 21] = [
    "amd64", "arm64", "arm", "386", "ppc64le", "s390x", "riscv64", "loong64", "mips", "mipsle", "mips64", "mips64le",
    "ppc64", "ppc", "riscv", "s390", "sparc", "sparc64", "armbe", "arm64be", "wasm",
];

impl From<&oci_spec::image::Platform> for Platform {
    fn from(platform: &oci_spec::image::Platform) -> Self {
        let (os, architecture) = (platform.os().to_string(), platform.architecture().to_string());
        Self::normal(&os, &architecture, platform.variant().as_deref())
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// Reads `os/architecture[/variant]`, or one of the first two alone: the other is then this machine's.
    fn from_str(text: &str) -> Result<Self> {
        let fail = |reason: String| Error::Configuration { what: format!("platform '{text}'"), reason };
        let parts: Vec<_> = text.split('/').collect();
        let word =
            |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        if !parts.iter().all(word) || parts.len() > 3 {
            return Err(fail("not of the form os/architecture or os/architecture/variant".into()));
        }
        let host = Self::host();
        let this = match parts[..] {
            [word] => match Self::normal(word, &host.architecture, host.variant.as_deref()) {
                system if SYSTEMS.contains(&&system.os[..]) => system,
                _ => Self::normal(&host.os, word, None),
            },
            [os, architecture] => Self::normal(os, architecture, None),
            _ => Self::normal(parts[0], parts[1], Some(parts[2])),
        };
        if !SYSTEMS.contains(&&this.os[..]) {
            return Err(fail(format!("'{}' is no operating system that images are made for", this.os)));
        }
        if !ARCHITECTURES.contains(&&this.architecture[..]) {
            let usual = ARCHITECTURES[..8].join(", ");
            return Err(fail(format!("'{}' is no architecture; the usual ones are {usual}", this.architecture)));
        }
        Ok(this)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_platform_are_equal() {
        let host = Platform::host();
        let table = [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("Linux/X86-64/v1", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/7", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/riscv64", "linux/riscv64"),
            ("macos/arm64", "darwin/arm64"),
        ];
        for (text, normal) in table {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), normal);
        }
        assert_eq!("linux".parse::<Platform>().unwrap(), host);
        for (text, architecture) in [("arm64", "arm64"), ("x86_64", "amd64"), ("armhf", "arm/v7")] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), format!("{}/{architecture}", host.os));
        }
    }

    #[test]
    fn what_is_no_platform_is_refused() {
        let cases = [
            ("", "not of the form"),
            ("linux/", "not of the form"),
            ("a/b/c/d", "not of the form"),
            ("linux/a b", "not of the form"),
            ("*/*", "not of the form"),
            ("linus/amd64", "'linus' is no operating system"),
            ("linux/amd46", "'amd46' is no architecture; the usual ones are amd64, arm64"),
            ("amd46", "'amd46' is no architecture"),
        ];
        for (text, message) in cases {
            let error = text.parse::<Platform>().unwrap_err().to_string();
            assert!(error.contains(message) && error.contains(&format!("platform '{text}'")), "{error}");
        }
    }

    #[test]
    fn older_variants_suit_and_newer_do_not() {
        let suits = |wanted: &str, offered: &str| wanted.parse::<Platform>().unwrap().suits(&offered.parse().unwrap());
        assert!(suits("linux/arm/v7", "linux/arm/v6") < suits("linux/arm", "linux/arm/v7"));
        assert_eq!(suits("linux/arm/v6", "linux/arm/v7"), None);
        assert_eq!(suits("linux/amd64", "linux/amd64/v3"), None);
        assert!(suits("linux/amd64/v3", "linux/amd64").is_some());
        assert_eq!(suits("linux/amd64", "windows/amd64"), None);
        assert!(suits("linux/s390x", "linux/s390x").is_some());
        assert!(suits("linux/riscv64", "linux/riscv64/rva23").is_some());
        assert!(suits("linux/mips/a", "linux/mips/b").is_none());
    }

    #[test]
    fn the_smaller_sibling_suits_where_nothing_else_does() {
        let suits = |wanted: &str, offered: &str| wanted.parse::<Platform>().unwrap().suits(&offered.parse().unwrap());
        assert!(suits("linux/amd64", "linux/386").is_some());
        assert!(suits("linux/amd64", "linux/386") < suits("linux/amd64", "linux/amd64"));
        assert!(suits("linux/arm64", "linux/arm/v7") < suits("linux/arm64", "linux/arm64"));
        assert!(suits("linux/arm64", "linux/arm/v6") < suits("linux/arm64", "linux/arm/v7"));
        assert_eq!(suits("linux/386", "linux/amd64"), None);
        assert_eq!(suits("linux/arm", "linux/arm64"), None);
    }
}
