//! Whose part of the cache a build reads and writes.

use crate::Error;
use crate::cache::Scopes;

use super::args::Environment;

/// What parts the two names of `--cache-scope`. No name of a branch can hold it, so none can name another part.
const SEPARATOR: char = ':';

/// The parts that `--cache-scope` names; else, on GitLab, those of the branch and of the default branch.
pub(super) fn scopes(given: Option<&str>, env: Environment<'_>) -> Result<Scopes, Error> {
    match given.filter(|text| !text.is_empty()) {
        Some(text) => named(text),
        None => Ok(gitlab(env)),
    }
}

/// `NAME` or `NAME:ALSO`
fn named(text: &str) -> Result<Scopes, Error> {
    let (own, also) = text.split_once(SEPARATOR).unwrap_or((text, ""));
    if own.is_empty() || also.contains(SEPARATOR) {
        let message = format!("'{text}' is not of the form NAME or NAME{SEPARATOR}ALSO-READ");
        return Err(Error::Usage { flag: "--cache-scope", message });
    }
    let also = Some(also).filter(|also| !also.is_empty() && *also != own);
    Ok(Scopes { own: Some(own.to_owned()), also: also.map(str::to_owned) })
}

/// GitLab's variables. CI_COMMIT_REF_NAME is a branch's name, also in the pipeline of a merge request, where it is the
/// source branch's; or a tag's.
fn gitlab(env: Environment<'_>) -> Scopes {
    let variable = |name: &str| env(name).filter(|value| !value.is_empty());
    if variable("GITLAB_CI").is_none() {
        return Scopes::default();
    }
    let source = variable("CI_MERGE_REQUEST_SOURCE_PROJECT_ID");
    let own = if source.is_some() && source != variable("CI_PROJECT_ID") {
        // A fork may call its branch as a branch here is called.
        Some(format!("merge-request-{}", variable("CI_MERGE_REQUEST_IID").unwrap_or_default()))
    } else if let Some(tag) = variable("CI_COMMIT_TAG") {
        // Who may push a tag called `main` may not be who may push to the branch.
        Some(format!("tag-{tag}"))
    } else {
        variable("CI_COMMIT_REF_NAME")
    };
    let also = variable("CI_DEFAULT_BRANCH").filter(|branch| own.as_ref() != Some(branch));
    Scopes { own, also }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: Option<&str>, variables: &[(&str, &str)]) -> Result<Scopes, Error> {
        let env = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        scopes(given, &env)
    }

    #[test]
    fn a_scope_is_what_is_given_or_the_branch_on_gitlab() {
        let branch = [("GITLAB_CI", "true"), ("CI_COMMIT_REF_NAME", "feature"), ("CI_DEFAULT_BRANCH", "main")];
        let default = [("GITLAB_CI", "true"), ("CI_COMMIT_REF_NAME", "main"), ("CI_DEFAULT_BRANCH", "main")];
        let merge_request = |source| {
            let more = [("CI_PROJECT_ID", "1"), ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", source)];
            default.iter().copied().chain(more).chain([("CI_MERGE_REQUEST_IID", "7")]).collect::<Vec<_>>()
        };
        let tag = default.iter().copied().chain([("CI_COMMIT_TAG", "main")]).collect::<Vec<_>>();
        for (given, variables, own, also) in [
            (None, &[][..], None, None),
            (None, &branch[1..], None, None),
            (None, &[("GITLAB_CI", "")], None, None),
            (None, &branch[..1], None, None),
            (None, &branch, Some("feature"), Some("main")),
            (None, &branch[..2], Some("feature"), None),
            (None, &default, Some("main"), None),
            (Some(""), &branch, Some("feature"), Some("main")),
            (None, &merge_request("1"), Some("main"), None),
            (None, &merge_request("2"), Some("merge-request-7"), Some("main")),
            (None, &merge_request(""), Some("main"), None),
            (None, &tag, Some("tag-main"), Some("main")),
            (Some("mine"), &branch, Some("mine"), None),
            (Some("mine:main"), &[], Some("mine"), Some("main")),
            (Some("mine:"), &[], Some("mine"), None),
            (Some("mine:mine"), &[], Some("mine"), None),
            (Some("main,x"), &[], Some("main,x"), None),
        ] {
            let expected = Scopes { own: own.map(str::to_owned), also: also.map(str::to_owned) };
            assert_eq!(of(given, variables).unwrap(), expected, "{given:?} {variables:?}");
        }
    }

    #[test]
    fn a_fork_without_a_number_is_no_branch_either() {
        let fork = [("GITLAB_CI", "1"), ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "2"), ("CI_COMMIT_REF_NAME", "main")];
        assert_eq!(of(None, &fork).unwrap().own.as_deref(), Some("merge-request-"));
    }

    #[test]
    fn scopes_have_names() {
        for text in [":main", ":", "a:b:c"] {
            let error = of(Some(text), &[]).unwrap_err().to_string();
            assert!(error.starts_with("--cache-scope: ") && error.contains("NAME:ALSO-READ"), "{error}");
        }
    }
}
