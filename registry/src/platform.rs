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
    /// for, so that `v2` and `v3` images are chosen only on request.
    pub fn suits(&self, offered: &Self) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        match (self.level(), offered.level()) {
            (Some(wanted), Some(offered)) => (offered <= wanted).then_some(offered),
            _ => (self.variant.is_none() || self.variant == offered.variant).then_some(0),
        }
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

    fn normal(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = if os == "macos" { "darwin" } else { os };
        let (architecture, implied) = match architecture {
            "x86_64" | "x86-64" => ("amd64", None),
            "aarch64" => ("arm64", None),
            "x86" | "i386" | "i686" => ("386", None),
            "armhf" => ("arm", Some("v7")),
            "armel" => ("arm", Some("v6")),
            "powerpc64" => ("ppc64le", None),
            other => (other, None),
        };
        let variant = variant.or(implied).filter(|variant| !variant.is_empty());
        let variant = match (architecture, variant) {
            ("arm64", Some("8" | "v8")) | ("amd64", Some("v1")) => None,
            ("arm", Some(number @ ("5" | "6" | "7" | "8"))) => Some(format!("v{number}")),
            (_, variant) => variant.map(str::to_owned),
        };
        Self { os: os.into(), architecture: architecture.into(), variant }
    }
}

impl From<&oci_spec::image::Platform> for Platform {
    fn from(platform: &oci_spec::image::Platform) -> Self {
        let (os, architecture) = (platform.os().to_string(), platform.architecture().to_string());
        Self::normal(&os, &architecture, platform.variant().as_deref())
    }
}

impl FromStr for Platform {
    type Err = Error;

    /// Reads `os/architecture[/variant]`.
    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<_> = text.split('/').collect();
        let word =
            |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
        match parts[..] {
            [os, architecture] if parts.iter().all(word) => Ok(Self::normal(os, architecture, None)),
            [os, architecture, variant] if parts.iter().all(word) => Ok(Self::normal(os, architecture, Some(variant))),
            _ => Err(Error::Configuration {
                what: format!("platform '{text}'"),
                reason: "not of the form os/architecture or os/architecture/variant".into(),
            }),
        }
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
        let table = [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm/7", "linux/arm/v7"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/riscv64", "linux/riscv64"),
        ];
        for (text, normal) in table {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), normal);
        }
        assert!(["", "linux", "linux/", "a/b/c/d", "linux/a b"].iter().all(|text| text.parse::<Platform>().is_err()));
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
}
