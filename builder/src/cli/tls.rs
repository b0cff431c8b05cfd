//! Flags about TLS, and the certificates that lie about.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};
use yadokari_registry::{Bundle, ClientOptions, RegistryTls, Secret};

use super::args::{pair, truth};
use super::paths;
use crate::Error;
use crate::progress::Progress;

/// How registries are trusted.
#[derive(Debug, Default, Args)]
pub(super) struct TlsFlags {
    /// Take any certificate of the registries that are pushed to. Anybody in between can take the login.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    pub(super) skip_tls_verify: bool,
    /// Take any certificate of the registries that are only pulled from.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", default_value = "false", value_parser = truth)]
    pub(super) skip_tls_verify_pull: bool,
    /// Take any certificate of this registry. Repeatable.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub(super) skip_tls_verify_registry: Vec<String>,
    /// Trust the certificate authorities of a file for this registry. Repeatable.
    #[arg(long, value_name = "HOST[:PORT]=FILE")]
    pub(super) registry_certificate: Vec<String>,
    /// Show this registry a certificate, with its key in another file. Repeatable.
    #[arg(long, value_name = "HOST[:PORT]=CERTIFICATE,KEY")]
    pub(super) registry_client_cert: Vec<String>,
}

/// Where Docker and Podman keep what is special about TLS with a registry, in a directory of its name.
const CERTIFICATES: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

impl TlsFlags {
    /// Puts into `options` what the flags say. `pushed` are the registries that are pushed to. The result are files
    /// that nobody else may see.
    pub(super) fn apply(&self, options: &mut ClientOptions, pushed: &[String]) -> Result<Vec<PathBuf>, Error> {
        let given = self.skip_tls_verify_registry.iter().filter(|name| !name.is_empty());
        options.unverified_registries = given.cloned().collect();
        // The client is one for both directions: what differs is which registries are meant.
        match (self.skip_tls_verify, self.skip_tls_verify_pull) {
            (true, _) => options.unverified_registries.extend_from_slice(pushed),
            (false, true) => options.verified_registries = pushed.to_vec(),
            (false, false) => {}
        }
        options.unverified = self.skip_tls_verify_pull;
        for text in &self.registry_certificate {
            let (registry, file) = pair("--registry-certificate", text)?;
            let authorities = vec![read(Path::new(&file))?];
            options.tls.push(RegistryTls { registry, authorities, identity: None });
        }
        let mut keys = Vec::new();
        for text in &self.registry_client_cert {
            let (registry, files) = pair("--registry-client-cert", text)?;
            let Some((chain, key)) = files.split_once(',') else {
                let message = format!("'{text}' is not of the form HOST=CERTIFICATE,KEY");
                return Err(Error::Usage { flag: "--registry-client-cert", message });
            };
            let identity = Some(identity(Path::new(chain), Path::new(key))?);
            options.tls.push(RegistryTls { registry, authorities: Vec::new(), identity });
            keys.push(PathBuf::from(key));
        }
        Ok(keys)
    }
}

/// What lies about for single registries. Paths of keys go to `keys`.
pub(super) fn registries(keys: &mut Vec<PathBuf>) -> Result<Vec<RegistryTls>, Error> {
    let found = CERTIFICATES.iter().map(|directory| by_directory(Path::new(directory), keys));
    Ok(found.collect::<Result<Vec<_>, _>>()?.concat())
}

/// What the directories of registries hold: authorities in `*.crt`, the client's certificate in `*.cert` and its key in
/// `*.key` of the same name. Paths of keys go to `keys`.
fn by_directory(root: &Path, keys: &mut Vec<PathBuf>) -> Result<Vec<RegistryTls>, Error> {
    let mut found = Vec::new();
    // Most machines have none, and nobody named this place.
    let registries = fs::read_dir(root).into_iter().flatten().flatten();
    for directory in registries.map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let Some(registry) = directory.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        let mut tls = RegistryTls { registry, authorities: Vec::new(), identity: None };
        let mut files: Vec<PathBuf> =
            fs::read_dir(&directory).into_iter().flatten().flatten().map(|e| e.path()).collect();
        files.sort();
        for path in files {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => tls.authorities.push(read(&path)?),
                Some("cert") => {
                    let key = path.with_extension("key");
                    tls.identity = Some(identity(&path, &key)?);
                    keys.push(key);
                }
                _ => {}
            }
        }
        found.push(tls);
    }
    Ok(found)
}

/// A certificate and its key.
fn identity(chain: &Path, key: &Path) -> Result<(Bundle, Secret), Error> {
    let unreadable = |source| Error::Host { operation: "read", path: key.to_owned(), source };
    Ok((read(chain)?, Secret::new(fs::read_to_string(key).map_err(unreadable)?)))
}

/// A file of certificates.
pub(super) fn read(path: &Path) -> Result<Bundle, Error> {
    let unreadable = |source| Error::Host { operation: "read", path: path.to_owned(), source };
    Ok(Bundle { name: path.display().to_string(), pem: fs::read(path).map_err(unreadable)? })
}

/// The bundles that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, and those of the executor's own directory.
pub(super) fn authorities(progress: &Progress) -> Vec<Bundle> {
    let directories = env::var_os("SSL_CERT_DIR").filter(|list| !list.is_empty());
    let directories = directories.as_deref().map(|list| env::split_paths(list).collect()).unwrap_or_default();
    let file = env::var_os("SSL_CERT_FILE").filter(|file| !file.is_empty()).map(PathBuf::from);
    gather(file, directories, &paths::home().join("ssl/certs"), progress)
}

/// Every file counts, each once: distributions link a certificate under several names. What was named and cannot be read
/// is warned of; a directory that is not there is as good as an empty one.
fn gather(file: Option<PathBuf>, named: Vec<PathBuf>, own: &Path, progress: &Progress) -> Vec<Bundle> {
    let lost = |path: &Path, error: io::Error| {
        progress.warning(&format!("no certificate authorities are read from {}: {error}", path.display()));
    };
    let mut files: Vec<PathBuf> = file.into_iter().collect();
    for directory in named.into_iter().chain([own.to_owned()]) {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                lost(&directory, error);
                continue;
            }
        };
        let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        found.sort();
        files.extend(found);
    }
    let mut seen: Vec<PathBuf> = Vec::new();
    let mut bundles = Vec::new();
    for path in files {
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        if seen.contains(&real) {
            continue;
        }
        match fs::read(&path) {
            // What a job appends to with an empty variable is an empty file.
            Ok(pem) if pem.trim_ascii().is_empty() => {}
            Ok(pem) => bundles.push(Bundle { name: path.display().to_string(), pem }),
            Err(error) => lost(&path, error),
        }
        seen.push(real);
    }
    bundles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Level;
    use crate::progress::said::Said;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn which_registries_are_not_verified_depends_on_the_direction() {
        let pushed = strings(&["push.example"]);
        let table = [
            (false, false, false, vec![], vec![]),
            (true, false, false, vec!["push.example"], vec![]),
            (false, true, true, vec![], vec!["push.example"]),
            (true, true, true, vec!["push.example"], vec![]),
        ];
        for (push, pull, all, named, verified) in table {
            let flags = TlsFlags { skip_tls_verify: push, skip_tls_verify_pull: pull, ..TlsFlags::default() };
            let mut options = ClientOptions::default();
            flags.apply(&mut options, &pushed).unwrap();
            assert_eq!(
                (options.unverified, options.unverified_registries, options.verified_registries),
                (all, strings(&named), strings(&verified))
            );
        }
        let flags = TlsFlags { skip_tls_verify_registry: strings(&["a.example", ""]), ..TlsFlags::default() };
        let mut options = ClientOptions::default();
        flags.apply(&mut options, &pushed).unwrap();
        assert_eq!((options.unverified, options.unverified_registries), (false, strings(&["a.example"])));
    }

    #[test]
    fn flags_about_trust_and_logins_are_read_as_pipelines_write_them() {
        use super::super::args::Command;
        let registry = |line: &str| {
            let words = format!("executor {line} -d r.example/i").split(' ').map(Into::into).collect();
            match super::super::parse(words).unwrap_or_else(|error| panic!("{line}: {error}")).command {
                Command::Build(build) => build.registry,
                other => panic!("{line}: {other:?}"),
            }
        };
        let flags = registry(
            "--skip-tls-verify --skip-tls-verify-pull true --skip-tls-verify-registry a --skip-tls-verify-registry=b,c \
             --registry-certificate r=/ca.crt --registry-client-cert=r=/crt,/key",
        );
        assert!(flags.tls.skip_tls_verify && flags.tls.skip_tls_verify_pull);
        assert_eq!(flags.tls.skip_tls_verify_registry, ["a", "b,c"]);
        assert_eq!(flags.tls.registry_certificate, ["r=/ca.crt"]);
        assert_eq!(flags.tls.registry_client_cert, ["r=/crt,/key"]);
        assert_eq!((flags.credentials.credential_helpers, flags.credentials.auth_debug), (None, false));
        let flags = registry("--credential-helpers= --auth-debug --authfile /f --skip-tls-verify=false").credentials;
        assert_eq!((flags.credential_helpers, flags.auth_debug), (Some(vec![String::new()]), true));
        assert_eq!(flags.auth_file, Some("/f".into()));
        let flags = registry("--credential-helpers ecr --credential-helpers env").credentials;
        assert_eq!(flags.credential_helpers, Some(strings(&["ecr", "env"])));
    }

    #[test]
    fn certificates_and_keys_of_registries_are_read_from_their_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        for name in ["ca.crt", "client.crt", "client.key"] {
            fs::write(path(name), name).unwrap();
        }
        let flags = TlsFlags {
            registry_certificate: vec![format!("r.example:5000={}", path("ca.crt"))],
            registry_client_cert: vec![format!("r.example:5000={},{}", path("client.crt"), path("client.key"))],
            ..TlsFlags::default()
        };
        let mut options = ClientOptions::default();
        assert_eq!(flags.apply(&mut options, &[]).unwrap(), [PathBuf::from(path("client.key"))], "the key is hidden");
        assert_eq!(options.tls[0].authorities, [Bundle { name: path("ca.crt"), pem: b"ca.crt".to_vec() }]);
        let (chain, key) = options.tls[1].identity.as_ref().unwrap();
        assert_eq!((&chain.pem[..], key.expose()), (&b"client.crt"[..], "client.key"));
        assert!(options.tls.iter().all(|tls| tls.registry == "r.example:5000"));

        for wrong in ["r.example", "r.example=/no/such/file", "=/x"] {
            let flags = TlsFlags { registry_certificate: strings(&[wrong]), ..TlsFlags::default() };
            assert!(flags.apply(&mut ClientOptions::default(), &[]).is_err(), "{wrong}");
        }
        let flags = TlsFlags { registry_client_cert: vec![format!("r={}", path("ca.crt"))], ..TlsFlags::default() };
        let error = flags.apply(&mut ClientOptions::default(), &[]).unwrap_err().to_string();
        assert!(error.contains("HOST=CERTIFICATE,KEY"), "{error}");
    }

    #[test]
    fn the_directories_of_docker_and_podman_hold_certificates_of_registries() {
        let directory = tempfile::tempdir().unwrap();
        let registry = directory.path().join("r.example:5000");
        fs::create_dir(&registry).unwrap();
        for name in ["ca.crt", "client.cert", "client.key", "README"] {
            fs::write(registry.join(name), name).unwrap();
        }
        let mut keys = Vec::new();
        let found = by_directory(directory.path(), &mut keys).unwrap();
        assert_eq!((found.len(), found[0].registry.as_str()), (1, "r.example:5000"));
        let name = registry.join("ca.crt").display().to_string();
        assert_eq!(found[0].authorities, [Bundle { name, pem: b"ca.crt".to_vec() }]);
        let (chain, key) = found[0].identity.as_ref().unwrap();
        assert_eq!((&chain.pem[..], key.expose()), (&b"client.cert"[..], "client.key"));
        assert_eq!(keys, [registry.join("client.key")]);
        fs::remove_file(registry.join("client.key")).unwrap();
        let error = by_directory(directory.path(), &mut keys).unwrap_err().to_string();
        assert!(error.contains("client.key"), "{error}");
        assert!(by_directory(&directory.path().join("gone"), &mut keys).unwrap().is_empty());
    }

    #[test]
    fn every_file_of_the_certificate_directories_counts_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["named", "own"] {
            fs::create_dir(path(name)).unwrap();
        }
        for name in ["file.pem", "named/b.crt", "named/a", "own/additional-ca-cert-bundle.crt"] {
            fs::write(path(name), name).unwrap();
        }
        fs::write(path("own/empty.crt"), "\n").unwrap();
        std::os::unix::fs::symlink("b.crt", path("named/0.hash")).unwrap();
        let said = Said::default();
        let progress = Progress::to(Level::Info, Box::new(said.clone()));
        let names = |file: Option<&str>, named: &[&str]| -> Vec<String> {
            let named = named.iter().map(|name| path(name)).collect();
            let bundles = gather(file.map(path), named, &path("own"), &progress);
            let short = |bundle: &Bundle| bundle.name.replace(&format!("{}/", directory.path().display()), "");
            bundles.iter().map(short).collect()
        };
        let own = "own/additional-ca-cert-bundle.crt";
        assert_eq!(names(Some("file.pem"), &["named", "own"]), ["file.pem", "named/0.hash", "named/a", own]);
        assert_eq!(said.text(), "");
        assert_eq!(names(Some("gone.pem"), &["gone", "file.pem"]), [own]);
        let said = said.text();
        assert_eq!(said.lines().count(), 2, "{said}");
        assert!(said.contains("gone.pem: No such file") && said.contains("file.pem: Not a directory"), "{said}");
    }
}
