//! The name of a step's result before it exists.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Digest;
use crate::digest::Hasher;

/// The identity of a step: equal keys mean equal results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key(Digest);

impl Key {
    /// The 64 hexadecimal digits, which are legal as a tag.
    pub fn hex(&self) -> String {
        self.0.hex()
    }

    /// The digest that the key is.
    pub fn digest(&self) -> Digest {
        self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.hex())
    }
}

/// Builds a [`Key`] from framed parts.
///
/// Every part carries its length, and every list its count, so that no two different sequences of parts feed the same
/// bytes: `("ab", "c")` and `("a", "bc")` differ, and so do `[]` and `[""]`. The encoding starts with a version; a golden
/// test pins it.
#[derive(Debug)]
pub struct KeyHasher {
    hasher: Hasher,
}

impl KeyHasher {
    /// Changes whenever the meaning of any part changes, which makes every older key a miss.
    pub const VERSION: u32 = 1;

    /// Starts the key of something of kind `domain` (`run`, `copy`): kinds never collide.
    pub fn new(domain: &str) -> Self {
        let mut this = Self { hasher: Hasher::default() };
        this.number(u64::from(Self::VERSION)).bytes(domain.as_bytes());
        this
    }

    /// Adds a string of bytes.
    pub fn bytes(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        self.number(bytes.len() as u64);
        self.hasher.update(bytes);
        self
    }

    /// Adds a number, as eight little-endian bytes.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.hasher.update(&number.to_le_bytes());
        self
    }

    /// Adds a value that may be absent; absence differs from every value.
    pub fn option(&mut self, value: Option<impl AsRef<[u8]>>) -> &mut Self {
        match value {
            None => self.number(u64::MAX),
            Some(value) => self.number(1).bytes(value),
        }
    }

    /// Adds a list, with its count.
    pub fn list<T: AsRef<[u8]>>(
        &mut self,
        items: impl IntoIterator<Item = T, IntoIter: ExactSizeIterator>,
    ) -> &mut Self {
        let items = items.into_iter();
        self.number(items.len() as u64);
        for item in items {
            self.bytes(item);
        }
        self
    }

    /// Adds a digest.
    pub fn digest(&mut self, digest: &Digest) -> &mut Self {
        self.bytes(digest.as_bytes())
    }

    /// The key of all parts.
    pub fn finish(self) -> Key {
        Key(self.hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: impl FnOnce(&mut KeyHasher)) -> Key {
        let mut hasher = KeyHasher::new("test");
        parts(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn framing_tells_apart_what_concatenation_would_not() {
        let ab_c = key(|k| _ = k.bytes("ab").bytes("c"));
        let a_bc = key(|k| _ = k.bytes("a").bytes("bc"));
        let list = key(|k| _ = k.list(["ab", "c"]));
        let empty = key(|k| _ = k.list(Vec::<&str>::new()));
        let one_empty = key(|k| _ = k.list([""]));
        let none = key(|k| _ = k.option(None::<&str>));
        let all = [ab_c, a_bc, list, empty, one_empty, none];
        for (i, a) in all.iter().enumerate() {
            assert!(all.iter().skip(i + 1).all(|b| a != b), "{i}");
        }
    }

    #[test]
    fn the_encoding_is_pinned() {
        let key = key(|k| _ = k.bytes("a").number(7).option(Some("b")).list(["c"]).digest(&Digest::of("")));
        assert_eq!(key.hex(), "fdda2dbeb979cfa39c9a69a75eb10613716b2688984591c12ff40604c64cc4e2");
    }
}
