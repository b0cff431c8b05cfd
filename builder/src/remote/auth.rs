//! Logins for private sources: secrets under the names that BuildKit looks for.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use yadokari_registry::Secret;

use super::url;

/// What an `Authorization` header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login(Secret);

/// Finds a secret by its name.
pub type Lookup = dyn Fn(&str) -> Option<Secret> + Send + Sync;

impl Login {
    /// A user and a password, or a token in place of one of them.
    pub fn basic(user: &str, password: &str) -> Self {
        Self(Secret::new(format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))))
    }

    /// The header's value.
    pub(super) fn header(&self) -> Secret {
        self.0.clone()
    }

    /// The login for a repository: `GIT_AUTH_HEADER` is a whole header, `GIT_AUTH_TOKEN` a token as GitHub and GitLab
    /// give them. Either may end in `.HOST`, which then goes first.
    pub(super) fn for_repository(remote: &str, secrets: &Lookup) -> Option<Self> {
        let host = url::host(remote);
        let names = [
            (format!("GIT_AUTH_HEADER.{host}"), false),
            (format!("GIT_AUTH_TOKEN.{host}"), true),
            ("GIT_AUTH_HEADER".into(), false),
            ("GIT_AUTH_TOKEN".into(), true),
        ];
        names.into_iter().find_map(|(name, is_token)| {
            let secret = trimmed(secrets(&name)?);
            Some(if is_token { Self::basic("x-access-token", secret.expose()) } else { Self(secret) })
        })
    }

    /// The login for a URL: `HTTP_AUTH_TOKEN_HOST` is a bearer token, `HTTP_AUTH_HEADER_HOST` a whole header.
    pub(super) fn for_url(remote: &str, secrets: &Lookup) -> Option<Self> {
        let host = url::host_name(remote);
        let token = secrets(&format!("HTTP_AUTH_TOKEN_{host}"));
        let token = token.map(|token| Self(Secret::new(format!("Bearer {}", trimmed(token).expose()))));
        token.or_else(|| secrets(&format!("HTTP_AUTH_HEADER_{host}")).map(|header| Self(trimmed(header))))
    }
}

/// A file that holds a token mostly ends in a line break, which no header can hold.
fn trimmed(secret: Secret) -> Secret {
    Secret::new(secret.expose().trim_end_matches(['\n', '\r']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(secrets: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<Secret> {
        |name| secrets.iter().find(|(known, _)| *known == name).map(|(_, value)| Secret::new(*value))
    }

    #[test]
    fn repositories_have_tokens_and_headers_by_host() {
        let login = |remote: &str, secrets| {
            Login::for_repository(remote, &store(secrets)).map(|login| login.0.expose().to_owned())
        };
        let remote = "https://git.example:8443/a/b.git";
        assert_eq!(login(remote, &[]), None);
        let basic = |token: &str| Some(format!("Basic {}", BASE64_STANDARD.encode(format!("x-access-token:{token}"))));
        assert_eq!(login(remote, &[("GIT_AUTH_TOKEN", "t\n")]), basic("t"));
        assert_eq!(login(remote, &[("GIT_AUTH_TOKEN", "t"), ("GIT_AUTH_TOKEN.git.example:8443", "u")]), basic("u"));
        assert_eq!(login(remote, &[("GIT_AUTH_TOKEN", "t"), ("GIT_AUTH_TOKEN.other", "u")]), basic("t"));
        assert_eq!(
            login(remote, &[("GIT_AUTH_TOKEN", "t"), ("GIT_AUTH_HEADER", "Bearer h")]).as_deref(),
            Some("Bearer h")
        );
    }

    #[test]
    fn urls_have_tokens_and_headers_by_host_name() {
        let login = |secrets| {
            Login::for_url("https://u@files.example:8443/x", &store(secrets)).map(|login| login.0.expose().to_owned())
        };
        assert_eq!(login(&[("HTTP_AUTH_TOKEN_other.example", "t")]), None);
        assert_eq!(login(&[("HTTP_AUTH_TOKEN_files.example", "t\r\n")]).as_deref(), Some("Bearer t"));
        assert_eq!(login(&[("HTTP_AUTH_HEADER_files.example", "Basic x")]).as_deref(), Some("Basic x"));
    }
}
