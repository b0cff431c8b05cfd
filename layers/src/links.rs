//! Following symbolic links without leaving the root.

use crate::{Error, RelPath, Result};

/// As many links as the kernel follows before it says ELOOP.
pub(crate) const MAX_LINKS: u32 = 40;

/// The path that `path` leads to, as for a process whose root is the root: an absolute link starts there, and `..` does
/// not leave it. `link` gives the text of a symbolic link, and `None` for everything else. The last component is followed
/// only where `last` says so. What does not exist is kept as it is written.
pub fn follow_links<T: AsRef<[u8]>>(
    path: &RelPath,
    last: bool,
    link: impl Fn(&RelPath) -> Option<T>,
) -> Result<RelPath> {
    let mut todo: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
    let mut done = RelPath::root();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        match &name[..] {
            b"" | b"." => continue,
            b".." => {
                done = done.parent().unwrap_or_default();
                continue;
            }
            _ => {}
        }
        let here = done.child(&name)?;
        let target = if last || !todo.is_empty() { link(&here) } else { None };
        let Some(target) = target else {
            done = here;
            continue;
        };
        let target = target.as_ref();
        links += 1;
        if links > MAX_LINKS {
            return Err(Error::SymlinkLoop(path.clone()));
        }
        if target.starts_with(b"/") {
            done = RelPath::root();
        }
        todo.extend(target.split(|&byte| byte == b'/').rev().map(<[u8]>::to_vec));
    }
    Ok(done)
}
