//! Hashing many files of a root.

use std::io::Read;

use rayon::prelude::*;

use crate::{Digest, Error, Hasher, RelPath, Result, Root};

/// Contents pass in pieces of this size.
const PIECE: usize = 128 * 1024;

/// So few files are hashed faster than other threads wake up.
const FEW: usize = 64;

impl Root {
    /// The digests of the contents of files, in the order of `paths`; on the threads of rayon's current pool where there are
    /// many. The first error in that order counts.
    pub fn digests(&self, paths: &[&RelPath]) -> Result<Vec<Digest>> {
        let buffer = || vec![0; PIECE];
        if paths.len() < FEW {
            let mut buffer = buffer();
            return paths.iter().map(|path| self.digest(path, &mut buffer)).collect();
        }
        let digests: Vec<Result<Digest>> =
            paths.par_iter().map_init(buffer, |buffer, path| self.digest(path, buffer)).collect();
        digests.into_iter().collect()
    }

    fn digest(&self, path: &RelPath, buffer: &mut [u8]) -> Result<Digest> {
        let read = |source| Error::Path { operation: "read content of", path: path.clone(), source };
        let (mut file, mut hasher) = (self.open_file(path)?, Hasher::default());
        loop {
            match file.read(buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(length) => hasher.update(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{path, temp, write};

    #[test]
    fn each_digest_is_that_of_its_file() {
        let (dir, root) = temp();
        let names: Vec<RelPath> = (0..3 * FEW).map(|number| path(&format!("d/{number}"))).collect();
        names.iter().for_each(|name| write(dir.path(), &name.to_string(), &name.to_string()));
        for count in [0, 1, FEW, 3 * FEW] {
            let paths: Vec<&RelPath> = names[..count].iter().collect();
            let expected: Vec<Digest> = paths.iter().map(|path| Digest::of(path.to_string())).collect();
            assert_eq!(root.digests(&paths).unwrap(), expected);
        }
    }

    #[test]
    fn the_first_file_that_cannot_be_read_is_named() {
        let (dir, root) = temp();
        let names: Vec<RelPath> = (0..2 * FEW).map(|number| path(&format!("f{number:03}"))).collect();
        for name in names.iter().filter(|name| name.as_bytes() != b"f007" && name.as_bytes() != b"f100") {
            write(dir.path(), &name.to_string(), "");
        }
        let error = root.digests(&names.iter().collect::<Vec<_>>()).unwrap_err().to_string();
        assert!(error.contains("f007"), "{error}");
    }
}
