//! The commit that a release is made of.

use std::path::Path;

use crate::command::Output;
use crate::run;

/// A commit by its id, and when it was made: the time of all that is in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The whole hash.
    pub id: String,
    /// Seconds since the epoch.
    pub time: String,
}

impl Commit {
    /// The one that is checked out in `source`; none where files differ from it, or git knows of none.
    pub fn of(source: &Path) -> Option<Self> {
        let git = |arguments: &[&str]| -> Option<Output> {
            let place = ["-C".to_owned(), source.to_string_lossy().into_owned()];
            run("git", place.iter().map(String::as_str).chain(arguments.iter().copied())).ok()
        };
        // What was unpacked into somebody else's checkout is not that one's commit.
        let above = git(&["rev-parse", "--show-prefix"])?.stdout;
        let changed = git(&["status", "--porcelain"])?.stdout;
        let said = git(&["log", "-1", "--format=%H %ct"])?.stdout;
        let (id, time) = said.trim().split_once(' ')?;
        (above.trim().is_empty() && changed.is_empty()).then(|| Self { id: id.to_owned(), time: time.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::scratch;

    #[test]
    fn a_commit_is_what_is_checked_out_and_nothing_else() {
        let scratch = scratch::directory().unwrap();
        let place = scratch.path();
        assert_eq!(Commit::of(place), None);
        let directory = place.to_string_lossy().into_owned();
        let git = |arguments: &[&str]| {
            let author = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.com"];
            run("git", [&["-C", &directory], &author[..], arguments].concat()).unwrap().stdout
        };
        git(&["init", "--quiet"]);
        git(&["commit", "--quiet", "--allow-empty", "--message", "one", "--date", "@1"]);
        let commit = Commit::of(place).unwrap();
        assert_eq!(commit.id, git(&["rev-parse", "HEAD"]).trim());
        assert_eq!(commit.time, git(&["show", "-s", "--format=%ct"]).trim());
        fs::write(place.join("new"), "").unwrap();
        assert_eq!(Commit::of(place), None);
    }
}
