//! `--secret` and `--ssh`: values and sockets, read once, before anything runs.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::Error;
use crate::progress::Progress;
use crate::secrets::{Agents, LARGEST, Place, SecretSpec, Secrets};

/// The bytes of environment variables.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The secrets that `--secret` names, and the files that hold them, which are hidden while a RUN runs in place.
pub(super) fn secrets(
    given: &[String],
    env: Variables<'_>,
    progress: &Progress,
) -> Result<(Secrets, Vec<PathBuf>), Error> {
    let (mut secrets, mut files) = (Secrets::default(), Vec::new());
    for text in given {
        let usage = |message| Error::Usage { flag: "--secret", message };
        let SecretSpec { id, place } = SecretSpec::parse(text, &|name| env(name).is_some()).map_err(usage)?;
        let value = match place {
            Place::Variable(name) => {
                let value = env(&name);
                if value.is_none() {
                    progress.warning(&format!("--secret {id} is empty: the environment has no {name}"));
                }
                Zeroizing::new(value.unwrap_or_default().into_vec())
            }
            Place::File(path) => {
                let value = read(&path).map_err(|error| usage(format!("{id}: '{}': {error}", path.display())))?;
                if path.is_file() {
                    files.push(std::path::absolute(&path).unwrap_or(path));
                }
                value
            }
        };
        if value.len() > LARGEST {
            return Err(usage(format!("{id} is larger than {} KB", LARGEST >> 10)));
        }
        secrets.insert(id, value);
    }
    Ok((secrets, files))
}

/// The file's bytes, or as many as say that it is too large.
fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    // As large as it can get, so that growing leaves no copies behind.
    let mut value = Zeroizing::new(Vec::with_capacity(LARGEST + 2));
    fs::File::open(path)?.take(LARGEST as u64 + 1).read_to_end(&mut value)?;
    Ok(value)
}

/// The agents that `--ssh` names: `ID` or `ID=SOCKET`. Without a socket it is the environment's.
pub(super) fn agents(given: &[String], env: Variables<'_>) -> Result<Agents, Error> {
    let usage = |message| Error::Usage { flag: "--ssh", message };
    let mut agents = Agents::default();
    for text in given {
        let (id, socket) = text.split_once('=').unwrap_or((text, ""));
        let id = if id.is_empty() { "default" } else { id };
        let socket = match socket {
            "" => env("SSH_AUTH_SOCK").filter(|socket| !socket.is_empty()).map(PathBuf::from).ok_or_else(|| {
                usage(format!("{id}: SSH_AUTH_SOCK is not set: start an agent, or write {id}=SOCKET"))
            })?,
            socket => PathBuf::from(socket),
        };
        let kind = fs::metadata(&socket).map_err(|error| usage(format!("{id}: '{}': {error}", socket.display())))?;
        if !kind.file_type().is_socket() {
            return Err(usage(format!(
                "{id}: '{}' is no socket. Keys are given through an agent: eval $(ssh-agent), ssh-add FILE, --ssh {id}",
                socket.display()
            )));
        }
        agents.insert(id, std::path::absolute(&socket).unwrap_or(socket));
    }
    Ok(agents)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::progress::Level;

    fn quiet() -> Progress {
        Progress::to(Level::Error, Box::new(io::sink()))
    }

    fn env(name: &str) -> Option<OsString> {
        (name == "SET").then(|| OsString::from_vec(b"from env \xff".to_vec()))
    }

    fn given(texts: &[String]) -> Result<(Secrets, Vec<PathBuf>), Error> {
        secrets(texts, &env, &quiet())
    }

    #[test]
    fn values_come_from_where_they_are_said_to_be() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f");
        fs::write(&file, "from file").unwrap();
        let texts = [
            "id=SET".to_owned(),
            format!("id=a,src={}", file.display()),
            "id=b,env=SET".to_owned(),
            "id=c,env=UNSET".to_owned(),
            format!("id={}", file.display()),
        ];
        let (secrets, files) = given(&texts).unwrap();
        let expected: [(&str, &[u8]); 5] = [
            ("SET", b"from env \xff"),
            ("a", b"from file"),
            ("b", b"from env \xff"),
            ("c", b""),
            (file.to_str().unwrap(), b"from file"),
        ];
        for (id, value) in expected {
            assert_eq!(secrets.get(id), Some(value), "{id}");
        }
        assert_eq!(files, [file.clone(), file]);
    }

    #[test]
    fn the_later_of_two_with_one_id_holds() {
        let (secrets, _) = given(&["id=a,env=UNSET".to_owned(), "id=a,env=SET".to_owned()]).unwrap();
        assert_eq!(secrets.get("a"), Some(&b"from env \xff"[..]));
    }

    #[test]
    fn what_is_missing_or_too_large_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f");
        fs::write(&file, vec![b'x'; LARGEST]).unwrap();
        let text = format!("id=a,src={}", file.display());
        assert_eq!(given(std::slice::from_ref(&text)).unwrap().0.get("a").map(<[u8]>::len), Some(LARGEST));
        fs::write(&file, vec![b'x'; LARGEST + 1]).unwrap();
        assert_eq!(given(&[text]).unwrap_err().to_string(), "--secret: a is larger than 500 KB");
        let error = given(&["id=no-such-file".to_owned()]).unwrap_err().to_string();
        assert!(error.starts_with("--secret: no-such-file: 'no-such-file': "), "{error}");
        assert!(given(&["src=x".to_owned()]).unwrap_err().to_string().starts_with("--secret: "));
    }

    #[test]
    fn an_agent_is_a_socket() {
        let directory = tempfile::tempdir().unwrap();
        let (socket, key) = (directory.path().join("s"), directory.path().join("id_ed25519"));
        let _listener = UnixListener::bind(&socket).unwrap();
        fs::write(&key, "-----BEGIN OPENSSH PRIVATE KEY-----").unwrap();
        let path = socket.clone();
        let env = move |name: &str| (name == "SSH_AUTH_SOCK").then(|| path.clone().into_os_string());
        let all = agents(&["default".to_owned(), format!("other={}", socket.display())], &env).unwrap();
        assert_eq!((all.get("default"), all.get("other")), (Some(&*socket), Some(&*socket)));
        assert_eq!(agents(&[String::new()], &env).unwrap().get("default"), Some(&*socket));
        let error = agents(&[format!("default={}", key.display())], &env).unwrap_err().to_string();
        assert!(error.contains("is no socket") && error.contains("ssh-add FILE"), "{error}");
        let error = agents(&["default".to_owned()], &|_| None).unwrap_err().to_string();
        assert!(error.contains("SSH_AUTH_SOCK is not set"), "{error}");
        assert!(agents(&["a=/no/such".to_owned()], &env).is_err());
    }
}
