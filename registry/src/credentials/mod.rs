//! Logins, and where they come from.
//!
//! Errors and warnings name keys and positions, never values: even a JSON error's text may quote a password.

mod config;
mod provider;
mod scope;

use std::sync::Arc;

pub use self::config::{Config, Warning};
pub(crate) use self::provider::Asked;
pub use self::provider::{Lease, Provider};
use self::scope::Scope;
use crate::Secret;

/// Which login to use for which registry, or for which part of one: sources, best first.
///
/// Of all entries that hold a repository the one with the longest path counts, whatever source it is of; of those with
/// one path, that of the first source. So an entry for `registry/org-a` is never offered for `registry/org-b`, and a
/// source that knows nothing of a registry hides no other that does.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    sources: Vec<Arc<Source>>,
}

/// One way to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// A user name and a password, a deploy token or a job token.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth2 refresh token, exchanged at the registry's token server.
    Identity(Secret),
    /// A token sent to the registry as it is.
    Registry(Secret),
}

/// A place that logins come from: a configuration, a helper program, a cloud's metadata.
#[derive(Debug)]
pub struct Source {
    name: String,
    /// Why there is nothing in it, where it is not there at all.
    absent: Option<String>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// `None` for whatever registry the provider covers.
    scope: Option<Scope>,
    keeper: Keeper,
}

/// Who knows a login.
#[derive(Debug)]
pub(crate) enum Keeper {
    Known(Login),
    Asked(Asked),
}

/// An entry that holds a repository.
#[derive(Debug)]
pub(crate) struct Candidate<'a> {
    source: usize,
    scope: Option<&'a Scope>,
    pub(crate) keeper: &'a Keeper,
}

/// What came of an entry.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Its login is used.
    Used(&'static str),
    /// It was asked, and has none.
    Nothing,
    /// It was asked, and could not say.
    Failed(String),
    /// Another one has the login.
    NotAsked,
}

impl Login {
    /// What kind of login it is, for whoever may not see it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Password { .. } => "a user and a password",
            Self::Identity(_) => "an identity token",
            Self::Registry(_) => "a registry token",
        }
    }
}

impl Source {
    /// A source without entries. Its name is for messages.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), absent: None, entries: Vec::new() }
    }

    /// A source that is not there, and why.
    pub fn absent(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { absent: Some(reason.into()), ..Self::new(name) }
    }

    /// Adds a login for `key`: `host[:port][/path]`, or a URL of these. What was added first wins.
    pub fn with(mut self, key: &str, login: Login) -> Self {
        self.entries.push(Entry { scope: Some(Scope::of(key)), keeper: Keeper::Known(login) });
        self
    }

    /// Adds somebody to ask for a registry, or for all that the provider covers.
    pub fn asking(mut self, registry: Option<&str>, provider: Arc<dyn Provider>) -> Self {
        let keeper = Keeper::Asked(Asked::new(provider));
        self.entries.push(Entry { scope: registry.map(Scope::of), keeper });
        self
    }
}

impl Credentials {
    /// Adds a source behind those that are there.
    pub fn push(&mut self, source: Source) {
        self.sources.push(Arc::new(source));
    }

    /// Adds a login that the caller has himself.
    pub fn add(&mut self, key: &str, login: Login) {
        self.push(Source::new("the caller").with(key, login));
    }

    /// The entries that hold a repository, in the order in which they count.
    pub(crate) fn candidates(&self, registry: &str, repository: &str) -> Vec<Candidate<'_>> {
        let wanted = Scope::of(registry);
        let mut found = Vec::new();
        for (number, source) in self.sources.iter().enumerate() {
            let holds = |entry: &&Entry| {
                let scope = entry.scope.as_ref().is_none_or(|scope| scope.holds(&wanted.host, repository));
                scope && entry.keeper.covers(&wanted.host)
            };
            let entries = source.entries.iter().filter(holds);
            let candidate = |entry| Candidate::new(number, entry);
            found.extend(entries.map(candidate));
        }
        // The sort is stable: of equal paths the first stays the first.
        found.sort_by_key(|candidate| std::cmp::Reverse(candidate.path().len()));
        found
    }

    /// What came of a lookup, source by source, in words without any secret.
    pub(crate) fn explain(&self, registry: &str, repository: &str, outcomes: &[(Candidate<'_>, Outcome)]) -> String {
        let mut text = format!("login for {registry}/{repository}:");
        let is_used = outcomes.iter().any(|(_, outcome)| matches!(outcome, Outcome::Used(_)));
        for (number, source) in self.sources.iter().enumerate() {
            let mut words: Vec<String> = Vec::new();
            for (candidate, outcome) in outcomes.iter().filter(|(candidate, _)| candidate.source == number) {
                let who = candidate.who();
                words.push(match outcome {
                    Outcome::Used(kind) => format!("used, {who}: {kind}"),
                    Outcome::Nothing => format!("{who} has no login"),
                    Outcome::Failed(reason) => format!("{who} failed: {reason}"),
                    Outcome::NotAsked => format!("not needed, {who}"),
                });
            }
            if words.is_empty() {
                words.push(source.silence(&Scope::of(registry).host));
            }
            text.push_str(&format!("\n  {}: {}", source.name, words.join("; ")));
        }
        if !is_used {
            text.push_str("\n  no source has a login: anonymous");
        }
        text
    }
}

impl Source {
    /// Why it has no entry that holds a repository of a registry.
    fn silence(&self, host: &str) -> String {
        if let Some(reason) = &self.absent {
            return reason.clone();
        }
        let scopes = self.entries.iter().filter_map(|entry| entry.scope.as_ref());
        let elsewhere: Vec<_> = scopes.filter(|scope| scope.host == host).map(Scope::to_string).collect();
        match elsewhere.as_slice() {
            [] => format!("nothing for {host}"),
            paths => format!("only for {}", paths.join(", ")),
        }
    }
}

impl Keeper {
    fn covers(&self, registry: &str) -> bool {
        match self {
            Self::Known(_) => true,
            Self::Asked(asked) => asked.covers(registry),
        }
    }
}

impl<'a> Candidate<'a> {
    fn new(source: usize, entry: &'a Entry) -> Self {
        Self { source, scope: entry.scope.as_ref(), keeper: &entry.keeper }
    }

    fn path(&self) -> &str {
        self.scope.map_or("", |scope| &scope.path)
    }

    fn who(&self) -> String {
        match (self.keeper, self.scope) {
            (Keeper::Asked(asked), _) => asked.name(),
            (Keeper::Known(_), Some(scope)) => format!("entry {scope}"),
            (Keeper::Known(_), None) => "an entry for all".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str) -> Login {
        Login::Password { user: user.into(), password: Secret::new("hunter2") }
    }

    /// The user of the login that counts.
    fn user(credentials: &Credentials, registry: &str, repository: &str) -> Option<String> {
        let candidates = credentials.candidates(registry, repository);
        match candidates.first()?.keeper {
            Keeper::Known(Login::Password { user, .. }) => Some(user.clone()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn logins_are_found_by_host_port_and_longest_path() {
        let mut credentials = Credentials::default();
        let keys = [
            ("https://index.docker.io/v1/", "hub"),
            ("https://Registry.Example/v2/", "host"),
            ("registry.example/team", "team"),
            ("registry.example/team/app", "app"),
            ("registry.example:5000", "port"),
            ("[::1]:5000", "six"),
        ];
        credentials.push(keys.iter().fold(Source::new("config"), |source, (key, user)| source.with(key, login(user))));
        let table = [
            ("docker.io", "library/alpine", Some("hub")),
            ("registry-1.docker.io", "library/alpine", Some("hub")),
            ("registry.example", "other/app", Some("host")),
            ("registry.example:443", "other/app", Some("host")),
            ("registry.example", "team/x", Some("team")),
            ("registry.example", "teams/x", Some("host")),
            ("registry.example", "team/app", Some("app")),
            ("registry.example", "team/app/cache", Some("app")),
            ("registry.example:5000", "x", Some("port")),
            ("[::1]:5000", "x", Some("six")),
            ("registry.example.evil", "x", None),
        ];
        for (registry, repository, expected) in table {
            assert_eq!(user(&credentials, registry, repository).as_deref(), expected, "{registry}/{repository}");
        }
    }

    #[test]
    fn a_login_for_one_organisation_is_never_offered_to_another() {
        let mut credentials = Credentials::default();
        credentials.push(Source::new("config").with("registry.example/org-a", login("a")));
        assert_eq!(user(&credentials, "registry.example", "org-a/app").as_deref(), Some("a"));
        for repository in ["org-b/app", "org-a-evil/app", "org", "x/org-a"] {
            assert_eq!(user(&credentials, "registry.example", repository), None, "{repository}");
        }
    }

    #[test]
    fn the_first_source_wins_but_for_longer_paths() {
        let mut credentials = Credentials::default();
        credentials.push(Source::new("first").with("a.example", login("1")).with("a.example", login("later")));
        let second = Source::new("second").with("a.example", login("2")).with("b.example", login("2"));
        credentials.push(second.with("a.example/team", login("team")));
        assert_eq!(user(&credentials, "a.example", "x").as_deref(), Some("1"));
        assert_eq!(user(&credentials, "b.example", "x").as_deref(), Some("2"), "a source hides no other");
        assert_eq!(user(&credentials, "a.example", "team/x").as_deref(), Some("team"));
    }

    #[test]
    fn a_lookup_is_explained_without_secrets() {
        let mut credentials = Credentials::default();
        credentials.push(Source::absent("DOCKER_AUTH_CONFIG", "not set"));
        credentials.push(Source::new("one.json").with("other.example", login("planted-user")));
        credentials.push(Source::new("two.json").with("registry.example/org-a", login("planted-user")));
        credentials.push(Source::new("three.json").with("registry.example", login("planted-user")));
        credentials.push(Source::new("four.json").with("registry.example", login("planted-user")));
        let mut candidates = credentials.candidates("registry.example", "org-b/app").into_iter();
        let outcomes = [
            (candidates.next().unwrap(), Outcome::Used("a user and a password")),
            (candidates.next().unwrap(), Outcome::NotAsked),
        ];
        let text = credentials.explain("registry.example", "org-b/app", &outcomes);
        assert_eq!(
            text,
            "login for registry.example/org-b/app:\n  \
             DOCKER_AUTH_CONFIG: not set\n  \
             one.json: nothing for registry.example\n  \
             two.json: only for registry.example/org-a\n  \
             three.json: used, entry registry.example: a user and a password\n  \
             four.json: not needed, entry registry.example"
        );
        assert!(credentials.explain("x.example", "x", &[]).ends_with("no source has a login: anonymous"));
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
