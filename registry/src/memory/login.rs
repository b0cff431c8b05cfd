//! The test registry's logins and its token server.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::http::{Head, Reply};

/// Which login the test registry wants.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// None.
    #[default]
    Anonymous,
    /// User and password with every request.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A token for exactly what is done, from the token server at `/token`, which wants user and password, or the
    /// password as an identity token. Anonymous tokens allow pulls only.
    Bearer {
        /// The user.
        user: String,
        /// The password.
        password: String,
        /// How long a token is good, whatever [`Serving::expires_in`](super::Serving::expires_in) says.
        life: Duration,
    },
}

/// The tokens given out.
#[derive(Debug, Default)]
pub(crate) struct Tokens(HashMap<String, Grant>);

#[derive(Debug)]
struct Grant {
    /// `repository:NAME:ACTION`, one action each.
    rights: HashSet<String>,
    until: Instant,
}

impl Auth {
    /// Checks a request's login for `actions` on a repository: `None` where it is good, else the refusal.
    pub(crate) fn check(
        &self,
        head: &Head,
        host: &str,
        repository: &str,
        actions: &str,
        tokens: &Tokens,
    ) -> Option<Reply> {
        let given = head.header("authorization").unwrap_or_default();
        let denied = |challenge: String| {
            let words = json!({"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]});
            Some(Reply::new(401).with("www-authenticate", challenge).body(words.to_string()))
        };
        match self {
            Self::Anonymous => None,
            Self::Basic { user, password } if given == basic(user, password) => None,
            Self::Basic { .. } => denied(r#"Basic realm="a registry, for tests""#.into()),
            Self::Bearer { .. } => {
                let token = given.strip_prefix("Bearer ").unwrap_or_default();
                let mut wanted = actions.split(',').map(|action| format!("repository:{repository}:{action}"));
                if wanted.all(|right| tokens.allow(token, &right)) {
                    return None;
                }
                denied(format!(
                    r#"Bearer realm="http://{host}/token",service="test, registry",scope="repository:{repository}:{actions}""#
                ))
            }
        }
    }

    /// Whether a token that covers the request also covers a pull from `repository`.
    pub(crate) fn may_mount(&self, head: &Head, repository: &str, tokens: &Tokens) -> bool {
        let token = head.header("authorization").and_then(|given| given.strip_prefix("Bearer ")).unwrap_or_default();
        !matches!(self, Self::Bearer { .. }) || tokens.allow(token, &format!("repository:{repository}:pull"))
    }

    /// The token server.
    pub(crate) fn token(&self, head: &Head, body: &[u8], expires_in: Option<u64>, tokens: &mut Tokens) -> Reply {
        let Self::Bearer { user, password, life } = self else { return Reply::new(404) };
        let refused = || Reply::new(401).body(json!({"details": "incorrect username or password"}).to_string());
        let form = reqwest::Url::parse(&format!("http://form/?{}", String::from_utf8_lossy(body)));
        let field = |name: &str| {
            let form = form.as_ref().ok()?;
            form.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        let (scopes, key, trusted) = if head.method == "POST" {
            let is_good = match field("grant_type").as_deref() {
                Some("refresh_token") => field("refresh_token").as_ref() == Some(password),
                Some("password") => {
                    field("username").as_ref() == Some(user) && field("password").as_ref() == Some(password)
                }
                _ => false,
            };
            if !is_good {
                return refused();
            }
            (field("scope").unwrap_or_default(), "access_token", true)
        } else {
            let trusted = match head.header("authorization") {
                Some(given) if given == basic(user, password) => true,
                Some(_) => return refused(),
                None => false,
            };
            let scopes = head.url.query_pairs().filter(|(key, _)| key == "scope").map(|(_, scope)| scope.into_owned());
            (scopes.collect::<Vec<_>>().join(" "), "token", trusted)
        };
        let service = if head.method == "POST" { field("service") } else { head.query("service") };
        if service.as_deref() != Some("test, registry") {
            return Reply::new(400).body(json!({"details": "unknown service"}).to_string());
        }
        let token = format!("{:016x}", RandomState::new().build_hasher().finish());
        let rights = scopes.split(' ').flat_map(rights).filter(|right| trusted || right.ends_with(":pull")).collect();
        tokens.0.insert(token.clone(), Grant { rights, until: Instant::now() + *life });
        let mut answer = json!({key: token});
        if let Some(seconds) = expires_in {
            answer["expires_in"] = seconds.into();
        }
        Reply::new(200).with("content-type", "application/json").body(answer.to_string())
    }
}

impl Tokens {
    fn allow(&self, token: &str, right: &str) -> bool {
        self.0.get(token).is_some_and(|grant| grant.until > Instant::now() && grant.rights.contains(right))
    }

    /// Forgets all tokens, as an expiry does.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// One right for each action of a scope.
fn rights(scope: &str) -> Vec<String> {
    let Some((resource, actions)) = scope.rsplit_once(':') else { return Vec::new() };
    actions.split(',').map(|action| format!("{resource}:{action}")).collect()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
