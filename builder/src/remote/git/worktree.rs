//! The files of a commit on disk.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use gix::ObjectId;
use gix::error::message;
use gix::worktree::stack::state::attributes;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use walkdir::WalkDir;

use super::choose::Chosen;
use super::{GitError, url};

/// Writes a commit's tree to `directory`, as git's checkout does: links as links, line ends as `.gitattributes` say.
pub(super) fn write(
    open: &gix::Repository,
    commit: &gix::Commit<'_>,
    directory: &Path,
    stop: &AtomicBool,
) -> gix::Result<()> {
    let mut index = open.index_from_tree(&commit.tree_id()?)?;
    let mut options = open.checkout_options(attributes::Source::IdMapping)?;
    options.destination_is_initially_empty = true;
    let discard = gix::progress::Discard;
    let objects = open.objects.clone().into_arc().map_err(gix::Error::from_error)?;
    let outcome = gix::worktree::state::checkout(&mut index, directory, objects, &discard, &discard, stop, options)?;
    if stop.load(Ordering::Relaxed) {
        return Err(gix::Error::from_error(message("it was given up")));
    }
    if let Some(record) = outcome.errors.first() {
        return Err(gix::Error::from_error(message!("'{}': {}", record.path, record.error)));
    }
    if let Some(collision) = outcome.collisions.first() {
        return Err(gix::Error::from_error(message!("'{}' is there twice", collision.path)));
    }
    index.write(gix::index::write::Options::default())
}

/// Leaves a repository in which git finds itself at the commit, on no branch.
pub(super) fn finish_git_dir(
    open: &gix::Repository,
    remote: &str,
    chosen: &Chosen,
    commit: ObjectId,
) -> Result<(), GitError> {
    let git = open.git_dir();
    let write = |path: &Path, text: String| {
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, text));
        made.map_err(|source| GitError::Host { operation: "write", path: path.to_owned(), source })
    };
    let fetched = git.join("refs/fetched");
    match fs::remove_file(&fetched) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(GitError::Host { operation: "remove", path: fetched, source });
        }
        _ => {}
    }
    // The name passed the checks for references when it was asked for.
    if let Some(name) = &chosen.name {
        write(&git.join(name), format!("{}\n", chosen.id))?;
    }
    write(&git.join("HEAD"), format!("{commit}\n"))?;
    let config = git.join("config");
    let known = fs::read_to_string(&config);
    let known = known.map_err(|source| GitError::Host { operation: "read", path: config.clone(), source })?;
    let origin = url::shown(remote).replace('\\', "\\\\").replace('"', "\\\"");
    let origin = format!("[remote \"origin\"]\n\turl = \"{origin}\"\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n");
    write(&config, format!("{known}{origin}"))
}

/// Gives files the modes that git knows, whatever the umask: 0644 and 0755, directories 0755. With a time, all have it.
pub(super) fn normalise(directory: &Path, time: Option<i64>) -> Result<(), GitError> {
    // Contents first: a change in a directory would change its time.
    for found in WalkDir::new(directory).contents_first(true) {
        let found = found.map_err(|error| {
            let path = error.path().unwrap_or(directory).to_owned();
            let source = error.into_io_error().unwrap_or_else(|| io::Error::other("a loop of directories"));
            GitError::Host { operation: "read", path, source }
        })?;
        let host = |operation| move |path: &Path, source| GitError::Host { operation, path: path.to_owned(), source };
        if !found.file_type().is_symlink() {
            let mode = fs::symlink_metadata(found.path()).map_err(|source| host("read")(found.path(), source))?.mode();
            // What the owner may do to a file, but for writing, all may. A directory is open to all.
            let mode = if found.file_type().is_dir() { 0o700 } else { mode & 0o700 };
            let open = mode | (mode & 0o500) >> 3 | (mode & 0o500) >> 6;
            let permissions = fs::Permissions::from_mode(open);
            fs::set_permissions(found.path(), permissions).map_err(|source| host("chmod")(found.path(), source))?;
        }
        if let Some(seconds) = time {
            let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
            let times = Timestamps { last_access: time, last_modification: time };
            let set = rustix::fs::utimensat(CWD, found.path(), &times, AtFlags::SYMLINK_NOFOLLOW);
            set.map_err(|error| host("set the time of")(found.path(), error.into()))?;
        }
    }
    Ok(())
}
