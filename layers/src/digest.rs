//! SHA-256 digests, and readers and writers that compute or check them as bytes pass.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest. Its text form is the OCI one: `sha256:` and 64 lower-case hexadecimal digits.
///
/// Other algorithms are legal in the OCI specification and unknown in practice; they are refused when parsed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(Sha256::digest(bytes.as_ref()).into())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal digits, without the algorithm.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a digest of the form sha256:<64 hexadecimal digits>")]
pub struct InvalidDigest(String);

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let invalid = || InvalidDigest(text.chars().take(100).collect());
        let hex = text.strip_prefix("sha256:").ok_or_else(invalid)?.as_bytes();
        if hex.len() != 64 {
            return Err(invalid());
        }
        let nibble = |c: u8| match c {
            b'0'..=b'9' => Ok(c - b'0'),
            b'a'..=b'f' => Ok(c - b'a' + 10),
            _ => Err(invalid()),
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

/// Hashes and counts what is written through it or fed to it.
#[derive(Clone, Default)]
pub struct Hasher {
    state: Sha256,
    size: u64,
}

impl Hasher {
    /// Takes `bytes` into the digest.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.size += bytes.len() as u64;
    }

    /// The number of bytes taken so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The digest of everything taken.
    pub fn finish(self) -> Digest {
        Digest(self.state.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hasher({} bytes)", self.size)
    }
}

/// A writer that hashes what passes on its way to another.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> HashingWriter<W> {
    /// Hashes what is written and passes it to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::default() }
    }

    /// The inner writer, and the hasher of what passed.
    pub fn finish(self) -> (W, Hasher) {
        (self.inner, self.hasher)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A reader that hashes what passes.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> HashingReader<R> {
    /// Reads `inner` and hashes what it gives.
    pub fn new(inner: R) -> Self {
        Self { inner, hasher: Hasher::default() }
    }

    /// Reads what is left, and gives the digest of everything.
    pub fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.hasher.finish())
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        Ok(n)
    }
}

/// Checks the digest and size of a blob as its pieces stream past, whatever the transport.
///
/// Feed every piece to [`Verifier::update`], then call [`Verifier::finish`]: only its `Ok` says that the blob was the
/// one that was asked for.
#[derive(Debug)]
pub struct Verifier {
    expected: Digest,
    size: Option<u64>,
    hasher: Hasher,
}

/// A blob that is not what its descriptor says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The bytes hash to something else.
    #[error("blob {expected}: its content has digest {found}")]
    Digest {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// There are more bytes than the descriptor allows, or fewer.
    #[error("blob {digest}: size is {found} bytes or more, expected {expected}")]
    TooLong {
        /// The blob.
        digest: Digest,
        /// The descriptor's size in bytes.
        expected: u64,
        /// The bytes seen when reading stopped.
        found: u64,
    },
    /// The blob ended early.
    #[error("blob {digest}: ends after {found} bytes, expected {expected}")]
    TooShort {
        /// The blob.
        digest: Digest,
        /// The descriptor's size in bytes.
        expected: u64,
        /// The bytes that came.
        found: u64,
    },
}

impl Mismatch {
    /// The digest that was asked for.
    pub fn blob(&self) -> Digest {
        match self {
            Self::Digest { expected: digest, .. } | Self::TooLong { digest, .. } | Self::TooShort { digest, .. } => {
                *digest
            }
        }
    }
}

impl Verifier {
    /// Expects a blob of digest `expected`, and of `size` bytes where the size is known.
    pub fn new(expected: Digest, size: Option<u64>) -> Self {
        Self { expected, size, hasher: Hasher::default() }
    }

    /// Takes the next piece. Fails as soon as the blob is longer than expected, so that a hostile sender cannot fill
    /// the disk.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), Mismatch> {
        self.hasher.update(bytes);
        match self.size {
            Some(expected) if self.hasher.size() > expected => {
                Err(Mismatch::TooLong { digest: self.expected, expected, found: self.hasher.size() })
            }
            _ => Ok(()),
        }
    }

    /// Says whether what came is the blob that was expected.
    pub fn finish(self) -> Result<(), Mismatch> {
        let found = self.hasher.size();
        if let Some(expected) = self.size.filter(|&expected| expected != found) {
            return Err(Mismatch::TooShort { digest: self.expected, expected, found });
        }
        let digest = self.hasher.finish();
        if digest == self.expected { Ok(()) } else { Err(Mismatch::Digest { expected: self.expected, found: digest }) }
    }
}

/// A reader that fails with [`io::ErrorKind::InvalidData`] (a [`Mismatch`] inside) instead of reporting the end of a
/// blob that is not the one expected.
#[derive(Debug)]
pub struct VerifiedReader<R> {
    inner: R,
    verifier: Option<Verifier>,
}

impl<R: Read> VerifiedReader<R> {
    /// Reads `inner`, which should hold the blob `expected`.
    pub fn new(inner: R, expected: Digest, size: Option<u64>) -> Self {
        Self { inner, verifier: Some(Verifier::new(expected, size)) }
    }
}

impl<R: Read> Read for VerifiedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let invalid = |mismatch| io::Error::new(io::ErrorKind::InvalidData, mismatch);
        if n > 0 {
            if let Some(verifier) = &mut self.verifier {
                verifier.update(&buffer[..n]).map_err(invalid)?;
            }
        } else if !buffer.is_empty()
            && let Some(verifier) = self.verifier.take()
        {
            verifier.finish().map_err(invalid)?;
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn digest_of_abc_reads_and_prints_as_the_oci_form() {
        assert_eq!(Digest::of("abc").to_string(), ABC);
        assert_eq!(ABC.parse::<Digest>(), Ok(Digest::of("abc")));
    }

    #[test]
    fn other_algorithms_and_malformed_digests_are_refused() {
        for text in ["", "sha256:", "sha512:00", &ABC[..70], &format!("{ABC}0"), &ABC.to_uppercase(), &ABC[7..]] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn verified_reader_tells_wrong_content_from_short_and_long() {
        let read = |content: &[u8], size| {
            let mut reader = VerifiedReader::new(content, Digest::of("abc"), size);
            let error = io::copy(&mut reader, &mut io::sink()).err()?;
            error.into_inner()?.downcast::<Mismatch>().ok()
        };
        assert_eq!(read(b"abc", Some(3)), None);
        assert_eq!(read(b"abc", None), None);
        assert!(matches!(read(b"abd", Some(3)), Some(boxed) if matches!(*boxed, Mismatch::Digest { .. })));
        assert!(matches!(read(b"ab", Some(3)), Some(boxed) if matches!(*boxed, Mismatch::TooShort { .. })));
        assert!(matches!(read(b"abcd", Some(3)), Some(boxed) if matches!(*boxed, Mismatch::TooLong { .. })));
    }
}
