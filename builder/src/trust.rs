//! Certificate authorities that commands trust, and that no image holds.

use crate::sandbox::{Mount, MountKind};

/// Where a command finds them. The directory is there for the time of a command.
const BUNDLE: &str = "/run/yadokari/ca-bundle.crt";

/// What apt is told of them: it has no variable for this alone.
const APT: &str = "/run/yadokari/apt.conf";

/// By which variable programs are told of a bundle: OpenSSL and all that use it, Go and Ruby; curl; Python's requests; pip; git;
/// Node.js and npm; cargo; the AWS clients.
const VARIABLES: [&str; 8] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
];

/// The authorities of `--run-ca-bundle`.
///
/// A command finds them in a file, and variables name that file. The image's own bundle stays as it is: a file over it would be
/// in the way of the programs that write it anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAuthorities(Vec<u8>);

impl RunAuthorities {
    /// The authorities of a bundle, a PEM text that has the public ones, too: what reads it reads no other.
    pub fn new(bundle: Vec<u8>) -> Self {
        Self(bundle)
    }

    /// Adds the variables that the command has not already.
    pub(crate) fn add_variables(&self, env: &mut Vec<(String, String)>) {
        let files = VARIABLES.map(|name| (name, BUNDLE)).into_iter().chain([("APT_CONFIG", APT)]);
        for (name, file) in files {
            if !env.iter().any(|(known, _)| known == name) {
                env.push((name.to_owned(), file.to_owned()));
            }
        }
    }

    /// The files that the variables name.
    pub(crate) fn mounts(&self) -> [Mount; 2] {
        let apt = format!("Acquire::https::CAInfo \"{BUNDLE}\";\n");
        [(BUNDLE, self.0.clone()), (APT, apt.into_bytes())].map(|(target, content)| Mount {
            target: target.to_owned(),
            kind: MountKind::File { content: content.into(), secret: false, mode: 0o644, uid: 0, gid: 0 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_of_its_authorities_unless_it_has_its_own() {
        let authorities = RunAuthorities::new(b"pem".to_vec());
        let mut env = vec![("PIP_CERT".to_owned(), "/mine".to_owned()), ("A".to_owned(), "b".to_owned())];
        authorities.add_variables(&mut env);
        let of =
            |name: &str| env.iter().filter(|(known, _)| known == name).map(|(_, file)| &file[..]).collect::<Vec<_>>();
        assert_eq!((of("PIP_CERT"), of("SSL_CERT_FILE"), of("APT_CONFIG")), (vec!["/mine"], vec![BUNDLE], vec![APT]));
        assert_eq!(env.len(), 2 + VARIABLES.len());
        let mounts = authorities.mounts();
        assert_eq!(mounts.each_ref().map(|mount| &mount.target[..]), [BUNDLE, APT]);
        let MountKind::File { content, .. } = &mounts[1].kind else { panic!("{mounts:?}") };
        assert!(content.expose().starts_with(b"Acquire::https::CAInfo \"/run/"));
    }
}
