//! A certificate authority that nobody trusts by himself, as companies have one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{At, Result};
use crate::{cache, run};

/// The names that the server's certificate is for.
const NAMES: [&str; 3] = ["registry.gitlab.example", "gitlab.example", "registry.lan"];

/// Its files: made once, and kept. Its server is `registry.gitlab.example`, `gitlab.example` or `registry.lan`.
#[derive(Clone, Debug)]
pub struct Authority(PathBuf);

impl Authority {
    /// Makes the authority, the certificate of a server of [`NAMES`], and one that signs tokens.
    pub fn obtain() -> Result<Self> {
        crate::packages::ensure()?;
        let names = NAMES.map(|name| format!("DNS:{name}")).join(",");
        cache::once("authority", &format!("1 {names}"), |directory| {
            let file = |name: &str| directory.join(name).display().to_string();
            let (ca, ca_key, server, server_key) =
                (file("ca.crt"), file("ca.key"), file("server.crt"), file("server.key"));
            let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"];
            let new = |words: &[&str]| run("openssl", [&["req"], words].concat()).map(drop);
            new(&[
                &["-x509", "-days", "3650", "-subj", "/CN=Example Authority"],
                &curve[..],
                &["-keyout", &ca_key, "-out", &ca],
            ]
            .concat())?;
            let (request, extensions) = (file("server.csr"), file("extensions"));
            new(&[&curve[..], &["-subj", "/CN=Example Registry", "-keyout", &server_key, "-out", &request]].concat())?;
            let text = format!("subjectAltName={names}\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n");
            fs::write(&extensions, text).at("write", &extensions)?;
            let words = ["x509", "-req", "-days", "3650", "-CAcreateserial", "-extfile", &extensions];
            run("openssl", words.iter().chain(&["-CA", &ca, "-CAkey", &ca_key, "-in", &request, "-out", &server]))?;
            let (tokens, tokens_key) = (file("tokens.crt"), file("tokens.key"));
            let subject = ["-x509", "-days", "3650", "-subj", "/CN=Example Tokens", "-newkey", "rsa:2048", "-noenc"];
            new(&[&subject[..], &["-keyout", &tokens_key, "-out", &tokens]].concat())
        })
        .map(Self)
    }

    /// Where a file of it is: `ca.crt`, `server.crt`, `server.key`, `tokens.crt`, `tokens.key`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// What is in such a file.
    pub(crate) fn read(&self, name: &str) -> Result<Vec<u8>> {
        let file: &Path = &self.file(name);
        fs::read(file).at("read", file)
    }
}
