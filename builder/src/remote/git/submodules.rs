//! Submodules: repositories in a repository, each at one commit.

use std::fs;
use std::path::Path;

use gix::index::entry::Mode;

use super::{GitError, MAX_DEPTH, Repository, Wanted, url};

/// Fetches the submodules of the repository `open`, whose files are in `directory`, and their submodules.
pub(super) fn check_out(
    parent: &Repository<'_>,
    open: &gix::Repository,
    directory: &Path,
    depth: usize,
) -> Result<(), GitError> {
    let index = open.open_index().map_err(|error| parent.error("read the index", &error))?;
    let links = index.entries().iter().filter(|entry| entry.mode == Mode::COMMIT);
    let links: Vec<_> = links.map(|entry| (entry.path(&index).to_string(), entry.id)).collect();
    if links.is_empty() {
        return Ok(());
    }
    let modules = open.open_modules_file().map_err(|error| parent.error("read .gitmodules", &error))?;
    for (path, commit) in links {
        let failed = |url: &str, source| {
            let (path, url) = (path.clone(), url::shown(url));
            GitError::Submodule { path, url, source: Box::new(source) }
        };
        let name = modules.as_ref().and_then(|modules| modules.name_by_path(path.as_str().into()));
        let address = modules.as_ref().zip(name).and_then(|(modules, name)| modules.url(name).ok());
        let Some(address) = address else {
            let reason =
                "the repository's .gitmodules does not say where it is; leave submodules out with ?submodules=false";
            return Err(failed("", GitError::Address(reason.into())));
        };
        let remote = absolute(parent.remote, &address.to_bstring().to_string());
        if depth == MAX_DEPTH {
            return Err(failed(&remote, GitError::Protocol(format!("submodules nest deeper than {MAX_DEPTH}"))));
        }
        check_address(&remote).map_err(|error| failed(&remote, error))?;
        let to = directory.join(&path);
        check_place(directory, &path).map_err(|error| failed(&remote, error))?;
        let child = Repository { remote: &remote, ..*parent };
        let checked_out =
            child.check_out(&Wanted::Commit(commit), &to, &mut |open| check_out(&child, open, &to, depth + 1));
        checked_out.map_err(|error| failed(&remote, error))?;
    }
    Ok(())
}

/// The address of a submodule: `./` and `../` are meant from the address of the repository that it is in.
fn absolute(parent: &str, address: &str) -> String {
    if !address.starts_with("./") && !address.starts_with("../") {
        return address.to_owned();
    }
    let mut base = parent.trim_end_matches('/').to_owned();
    let mut rest = address;
    loop {
        if let Some(tail) = rest.strip_prefix("../") {
            let host = base.find("://").map_or(0, |at| at + 3);
            match base[host..].rfind('/').or_else(|| base[host..].rfind(':')) {
                // `host:path` of SSH keeps its colon.
                Some(at) if base.as_bytes()[host + at] == b':' => base.truncate(host + at + 1),
                Some(at) => base.truncate(host + at),
                None => {}
            }
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix("./") {
            rest = tail;
        } else {
            let separator = if base.ends_with(':') { "" } else { "/" };
            return format!("{base}{separator}{rest}");
        }
    }
}

/// A repository must not make us read files of this host, or execute something.
fn check_address(remote: &str) -> Result<(), GitError> {
    if url::scheme(remote).is_some() || url::is_scp(remote) && !remote.starts_with('-') {
        return Ok(());
    }
    Err(GitError::Address("its address is none of http://, https://, git://, ssh:// and user@host:path".into()))
}

/// Where a submodule goes must be an empty directory, reached through directories and no links.
fn check_place(directory: &Path, path: &str) -> Result<(), GitError> {
    let mut place = directory.to_owned();
    for part in Path::new(path) {
        place.push(part);
        match fs::symlink_metadata(&place) {
            Ok(metadata) if metadata.is_dir() => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            _ => return Err(GitError::Protocol("something else is in its place".into())),
        }
    }
    match fs::read_dir(&place).map(|mut entries| entries.next().is_some()) {
        Ok(true) => Err(GitError::Protocol("its place is not empty".into())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_addresses_are_meant_from_the_repository() {
        let cases = [
            ("https://h/a/b.git", "../c.git", "https://h/a/c.git"),
            ("https://h/a/b.git/", "../../c/d", "https://h/c/d"),
            ("https://h/a/b.git", "./sub", "https://h/a/b.git/sub"),
            ("https://h/a/b.git", "../../../../c", "https://h/c"),
            ("git@h:a/b.git", "../c.git", "git@h:a/c.git"),
            ("git@h:b.git", "../c.git", "git@h:c.git"),
            ("https://h/a/b.git", "https://other/x", "https://other/x"),
        ];
        for (parent, address, expected) in cases {
            assert_eq!(absolute(parent, address), expected, "{parent} {address}");
        }
    }

    #[test]
    fn addresses_of_this_host_are_refused() {
        for remote in ["/etc", "file:///etc", "ext::sh -c id", "-oProxyCommand=x@h:y", ""] {
            assert!(check_address(remote).is_err(), "{remote}");
        }
        for remote in ["https://h/a", "git@h:a", "ssh://h/a", "git://h/a"] {
            assert!(check_address(remote).is_ok(), "{remote}");
        }
    }

    #[test]
    fn a_submodule_does_not_follow_links() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/tmp", directory.path().join("link")).unwrap();
        fs::create_dir_all(directory.path().join("a/b")).unwrap();
        fs::write(directory.path().join("file"), "").unwrap();
        for (path, fine) in
            [("a/b", true), ("a", false), ("link/x", false), ("link", false), ("file", false), ("new", true)]
        {
            assert_eq!(check_place(directory.path(), path).is_ok(), fine, "{path}");
        }
    }
}
