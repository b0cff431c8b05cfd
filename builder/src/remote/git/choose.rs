//! Which of a repository's references a name means.

use gix::ObjectId;
use gix::bstr::ByteSlice;
use gix::protocol::handshake::Ref;

use super::GitError;

/// The object that a name led to: a commit, or an annotated tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) id: ObjectId,
    /// The full name of the branch or tag; `None` for a commit.
    pub(super) name: Option<String>,
}

/// The reference that `name` means: as it is, else a branch, else a tag. Without a name the default branch.
pub(super) fn choose(references: &[Ref], name: Option<&str>) -> Result<Chosen, GitError> {
    let find = |wanted: &str| {
        references.iter().find_map(|reference| {
            let (name, id, _) = reference.unpack();
            (name == wanted.as_bytes().as_bstr()).then_some(()).and(id)
        })
    };
    let Some(name) = name else {
        let id = find("HEAD").ok_or_else(|| GitError::NoReference("the repository has no default branch".into()))?;
        let branch = references.iter().find_map(|reference| match reference {
            Ref::Symbolic { full_ref_name, target, .. } if full_ref_name == "HEAD" => Some(target.to_string()),
            _ => None,
        });
        return Ok(Chosen { id: id.to_owned(), name: branch });
    };
    let tail = |prefix: &str| format!("{prefix}{}", name.strip_prefix(prefix).unwrap_or(name));
    for full in [tail("refs/"), tail("refs/heads/"), tail("refs/tags/")] {
        if let Some(id) = find(&full) {
            return Ok(Chosen { id: id.to_owned(), name: Some(full) });
        }
    }
    let mut message = format!("the repository has no branch or tag '{name}'");
    if name.len() >= 4 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        message.push_str("; a commit is named by all of its 40 digits");
    }
    Err(GitError::NoReference(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> ObjectId {
        ObjectId::from_hex(digit.to_string().repeat(40).as_bytes()).unwrap()
    }

    fn direct(name: &str, digit: char) -> Ref {
        Ref::Direct { full_ref_name: name.into(), object: id(digit) }
    }

    fn chosen(name: Option<&str>) -> Result<Chosen, String> {
        let references = [
            Ref::Symbolic {
                full_ref_name: "HEAD".into(),
                target: "refs/heads/main".into(),
                tag: None,
                object: id('1'),
            },
            direct("refs/heads/main", '1'),
            direct("refs/tags/both", '2'),
            direct("refs/heads/both", '3'),
            Ref::Peeled { full_ref_name: "refs/tags/v1".into(), tag: id('4'), object: id('5') },
            direct("refs/pull/7/head", '6'),
        ];
        choose(&references, name).map_err(|error| error.to_string())
    }

    #[test]
    fn a_branch_goes_before_a_tag_and_a_full_name_before_both() {
        let cases = [
            (None, '1', "refs/heads/main"),
            (Some("main"), '1', "refs/heads/main"),
            (Some("both"), '3', "refs/heads/both"),
            (Some("refs/tags/both"), '2', "refs/tags/both"),
            (Some("tags/both"), '2', "refs/tags/both"),
            (Some("v1"), '4', "refs/tags/v1"),
            (Some("refs/pull/7/head"), '6', "refs/pull/7/head"),
            (Some("pull/7/head"), '6', "refs/pull/7/head"),
        ];
        for (name, digit, full) in cases {
            assert_eq!(chosen(name).unwrap(), Chosen { id: id(digit), name: Some(full.into()) }, "{name:?}");
        }
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        assert_eq!(chosen(Some("none")).unwrap_err(), "the repository has no branch or tag 'none'");
        assert!(chosen(Some("1111111")).unwrap_err().contains("all of its 40 digits"));
        assert!(choose(&[], None).unwrap_err().to_string().contains("no default branch"));
    }
}
