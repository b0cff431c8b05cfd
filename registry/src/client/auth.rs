//! Answers to challenges: logins and tokens, and where they may go.
//!
//! A login goes to the registry that it is for and, where that registry's challenge names one, to its token server;
//! nowhere else. A token goes to the registry that asked for it. Both stay off plain HTTP unless the registry itself
//! is spoken to in plain HTTP.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::answer::{Answer, clean};
use super::challenge::Challenge;
use super::endpoint::{host_of, shown};
use super::reach::{is_loopback, may_lead};
use super::retry::Failed;
use super::transport::Connection;
use crate::{Error, Login, Secret};

/// What a token without `expires_in` lives, by the token specification.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);

/// The part of a token's life after which it is not used any more: clocks differ, and requests take time.
const RENEWAL: f64 = 0.9;

/// What a request needs: the token specification's scopes, such as `repository:team/app:pull,push`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Scopes(Vec<String>);

impl Scopes {
    pub(crate) fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    pub(crate) fn push(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push")])
    }

    /// A deletion, which token servers grant apart from a push.
    pub(crate) fn delete(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,delete")])
    }

    /// A push that links blobs from `source`.
    pub(crate) fn mount(repository: &str, source: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push"), format!("repository:{source}:pull")])
    }

    /// These, and those that a challenge names beyond them: some registries know a repository under another name.
    fn with(&self, challenged: Option<&str>) -> Vec<String> {
        let mut all = self.0.clone();
        for scope in challenged.unwrap_or_default().split_whitespace() {
            if !self.0.iter().any(|ours| covers(ours, scope)) {
                all.push(scope.into());
            }
        }
        all
    }
}

/// Whether `ours` asks for the same resource and at least the same actions.
fn covers(ours: &str, theirs: &str) -> bool {
    match (ours.rsplit_once(':'), theirs.rsplit_once(':')) {
        (Some((resource, have)), Some((wanted, want))) => {
            resource == wanted && want.split(',').all(|action| have.split(',').any(|other| other == action))
        }
        _ => ours == theirs,
    }
}

/// The value of an `Authorization` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authorization(Secret);

impl Authorization {
    fn basic(user: &str, password: &Secret) -> Self {
        let pair = Secret::new(format!("{user}:{}", password.expose()));
        Self(Secret::new(format!("Basic {}", STANDARD.encode(pair.expose()))))
    }

    fn bearer(token: &Secret) -> Self {
        Self(Secret::new(format!("Bearer {}", token.expose())))
    }

    /// What goes to the registry itself where it asks for user and password; an identity token is none.
    fn direct(login: &Login) -> Option<Self> {
        match login {
            Login::Password { user, password } => Some(Self::basic(user, password)),
            Login::Registry(token) => Some(Self::bearer(token)),
            Login::Identity(_) => None,
        }
    }

    /// `None` where a token server sent what no header can hold.
    pub(crate) fn value(&self) -> Option<HeaderValue> {
        let mut value = HeaderValue::from_str(self.0.expose()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

/// How each registry wants its logins, and the tokens that its token server gave.
#[derive(Debug, Default)]
pub(crate) struct Keyring {
    challenges: Mutex<HashMap<String, Challenge>>,
    tokens: Mutex<HashMap<(String, Scopes), Slot>>,
    /// The most bytes of a request to each registry whose tokens are over before the body of a longer one has come.
    parts: Mutex<HashMap<String, u64>>,
    /// The repositories whose lookup was told.
    pub(super) told: Mutex<HashSet<String>>,
}

/// One token. The lock is held while a new one is fetched, so that many uploads ask for it once.
type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

#[derive(Debug)]
struct Token {
    authorization: Authorization,
    asked: Instant,
    /// How long it lives from then on.
    life: Duration,
    /// When the next one is asked for.
    until: Instant,
}

/// How long a token lives whose answer says this.
fn life(expires_in: Option<u64>) -> Duration {
    let said = expires_in.filter(|&seconds| seconds > 0).map_or(DEFAULT_LIFE, Duration::from_secs);
    said.min(Duration::from_secs(24 * 3600))
}

impl Keyring {
    fn challenge(&self, origin: &Url) -> Option<Challenge> {
        self.challenges.lock().unwrap_or_else(PoisonError::into_inner).get(&shown(origin)).cloned()
    }

    fn remember(&self, origin: &Url, challenge: &Challenge) {
        let mut challenges = self.challenges.lock().unwrap_or_else(PoisonError::into_inner);
        challenges.insert(shown(origin), challenge.clone());
    }

    /// What [`Keyring::limit`] set for a registry.
    pub(crate) fn part(&self, registry: &str) -> Option<u64> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).get(registry).copied()
    }

    /// Makes blobs go to a registry in parts: who waits for a body to find the token over would do so with every blob.
    pub(crate) fn limit(&self, registry: &str, part: u64) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(registry.into(), part);
    }

    fn slot(&self, origin: &Url, scopes: &Scopes) -> Slot {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(tokens.entry((shown(origin), scopes.clone())).or_default())
    }
}

impl Connection<'_> {
    /// What to send along unasked, because the registry asked for it before.
    pub(crate) async fn known(&self, origin: &Url, scopes: &Scopes) -> Result<Option<Authorization>, Failed> {
        match self.keyring().challenge(origin) {
            Some(challenge) => self.answer(origin, &challenge, scopes, None).await,
            None => Ok(None),
        }
    }

    /// How long the token for these scopes lives, where a token server gave one.
    pub(crate) async fn token_life(&self, origin: &Url, scopes: &Scopes) -> Option<Duration> {
        let slot = self.keyring().slot(origin, scopes);
        let slot = slot.lock().await;
        slot.as_ref().map(|token| token.life)
    }

    /// Answers a 401. `stale` is what the refused request carried, and when that was sent: the answer is never the same token
    /// again, nor one from before. `None` where there is nothing (more) to offer.
    pub(crate) async fn authorize(
        &self,
        origin: &Url,
        challenges: &[Challenge],
        scopes: &Scopes,
        stale: (Option<&Authorization>, Instant),
    ) -> Result<Option<Authorization>, Failed> {
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let Some(challenge) = bearer.or(challenges.first()) else { return Ok(None) };
        self.keyring().remember(origin, challenge);
        let answer = self.answer(origin, challenge, scopes, Some(stale)).await?;
        Ok(answer.filter(|answer| Some(answer) != stale.0))
    }

    async fn answer(
        &self,
        origin: &Url,
        challenge: &Challenge,
        scopes: &Scopes,
        refused: Option<(Option<&Authorization>, Instant)>,
    ) -> Result<Option<Authorization>, Failed> {
        let stale = refused.and_then(|(stale, _)| stale);
        let Challenge::Bearer { realm, service, scope } = challenge else {
            let mut login = self.login(None).await;
            let given = login.as_ref().and_then(Authorization::direct);
            if given.is_some() && given.as_ref() == stale {
                login = self.login(login.as_ref()).await;
            }
            return Ok(login.as_ref().and_then(Authorization::direct));
        };
        let slot = self.keyring().slot(origin, scopes);
        let mut slot = slot.lock().await;
        if let Some(token) = &*slot
            && token.until > Instant::now()
            && Some(&token.authorization) != stale
            && refused.is_none_or(|(_, sent)| token.asked > sent)
        {
            return Ok(Some(token.authorization.clone()));
        }
        let login = self.login(None).await;
        if let Some(Login::Registry(token)) = &login {
            return Ok(Some(Authorization::bearer(token)));
        }
        let wanted = TokenRequest { realm, service: service.as_deref(), scopes: scopes.with(scope.as_deref()) };
        let token = match self.fetch(origin, &wanted, login.as_ref()).await {
            Err(Failed { error: error @ Error::Unauthorized { .. }, again }) => {
                // What a helper or a cloud gave may be over; what a file says stays what it is, and accounts get locked
                // where a wrong password is tried again.
                let renewed = self.login(login.as_ref()).await;
                if renewed == login || renewed.is_none() {
                    return Err(Failed { error, again });
                }
                self.fetch(origin, &wanted, renewed.as_ref()).await?
            }
            token => token?,
        };
        let authorization = token.authorization.clone();
        *slot = Some(token);
        Ok(Some(authorization))
    }

    /// Fetches a token: with an identity token by OAuth2, else by GET with or without a login. A token server that
    /// does not know GET is asked by OAuth2's password grant.
    async fn fetch(&self, origin: &Url, wanted: &TokenRequest<'_>, login: Option<&Login>) -> Result<Token, Failed> {
        let realm = self.realm(origin, wanted, login)?;
        let asked = Instant::now();
        let mut answer = match login {
            Some(Login::Identity(token)) => {
                self.grant(&realm, wanted, &[("grant_type", "refresh_token"), ("refresh_token", token.expose())])
                    .await?
            }
            Some(Login::Password { user, password }) => {
                let answer = self.get_token(&realm, wanted, Some(&Authorization::basic(user, password))).await?;
                if matches!(answer.status(), 404 | 405) {
                    let form = [("grant_type", "password"), ("username", user), ("password", password.expose())];
                    self.grant(&realm, wanted, &form).await?
                } else {
                    answer
                }
            }
            Some(Login::Registry(_)) | None => self.get_token(&realm, wanted, None).await?,
        };
        if answer.status() != 200 {
            return Err(answer.refused(&host_of(&realm)).await);
        }
        let operation = self.token_operation();
        let broken = |reason: &str| Error::Protocol { operation, url: shown(&realm), reason: reason.into() };
        // The parser's error might quote the token.
        let reply: Reply = match serde_json::from_slice(&answer.bytes(1 << 20).await?) {
            Ok(reply) => reply,
            Err(_) => return Err(broken("its answer is not the JSON of a token").into()),
        };
        let given = [reply.token, reply.access_token].into_iter().flatten().find(|token| !token.expose().is_empty());
        let Some(token) = given else { return Err(broken("its answer holds no token").into()) };
        let life = life(reply.expires_in);
        Ok(Token { authorization: Authorization::bearer(&token), asked, life, until: asked + life.mul_f64(RENEWAL) })
    }

    async fn get_token(
        &self,
        realm: &Url,
        wanted: &TokenRequest<'_>,
        login: Option<&Authorization>,
    ) -> Result<Answer, Failed> {
        let mut url = realm.clone();
        url.query_pairs_mut().extend_pairs(wanted.service.map(|service| ("service", service)));
        url.query_pairs_mut().extend_pairs(wanted.scopes.iter().map(|scope| ("scope", scope)));
        let mut request = self.client.clients.ordinary().request(Method::GET, url);
        if let Some(value) = login.and_then(Authorization::value) {
            request = request.header(AUTHORIZATION, value);
        }
        self.execute(request, &self.token_operation(), None).await
    }

    async fn grant(&self, realm: &Url, wanted: &TokenRequest<'_>, secrets: &[(&str, &str)]) -> Result<Answer, Failed> {
        // A URL's query and a form have one encoding.
        let mut form = realm.clone();
        form.set_query(None);
        form.query_pairs_mut()
            .extend_pairs(secrets)
            .append_pair("client_id", "yadokari")
            .append_pair("service", wanted.service.unwrap_or_default())
            .append_pair("scope", &wanted.scopes.join(" "));
        let body = form.query().unwrap_or_default().to_owned();
        let request = self.client.clients.ordinary().request(Method::POST, realm.clone());
        let request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
        self.execute(request, &self.token_operation(), None).await
    }

    /// The token server's URL, if the login may go there.
    fn realm(&self, origin: &Url, wanted: &TokenRequest<'_>, login: Option<&Login>) -> Result<Url, Error> {
        let broken = |reason: String| {
            let reason = clean(&reason);
            Error::Protocol { operation: self.token_operation(), url: shown(origin), reason }
        };
        token_server(origin, wanted.realm, login.is_some()).map_err(broken)
    }

    fn token_operation(&self) -> String {
        format!("log in to {}", self.endpoint.registry)
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        &self.client.keyring
    }
}

/// The token server that a challenge names, which may be on another host, as Docker Hub's and GitLab's are. A login goes there in plain
/// text only where the registry itself is spoken to so.
fn token_server(origin: &Url, realm: &str, has_login: bool) -> Result<Url, String> {
    let url: Url = realm.parse().map_err(|error| format!("its challenge names the token server '{realm}': {error}"))?;
    may_lead(origin, &url).map_err(|place| format!("its challenge names a token server at {place}"))?;
    let plain_is_fine = !has_login || origin.scheme() == "http" || is_loopback(&url) && is_loopback(origin);
    match url.scheme() {
        "https" => Ok(url),
        "http" if plain_is_fine => Ok(url),
        "http" => Err(format!("its token server {} would get the login in plain text", shown(&url))),
        scheme => Err(format!("its challenge names a token server with the scheme {scheme}")),
    }
}

struct TokenRequest<'a> {
    realm: &'a str,
    service: Option<&'a str>,
    scopes: Vec<String>,
}

#[derive(Deserialize)]
struct Reply {
    token: Option<Secret>,
    access_token: Option<Secret>,
    expires_in: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_of_a_challenge_are_added_only_where_they_ask_for_more() {
        let table = [
            (None, vec!["repository:a:pull,push"]),
            (Some("repository:a:pull"), vec!["repository:a:pull,push"]),
            (Some("repository:a:push,pull"), vec!["repository:a:pull,push"]),
            (Some("repository:a:delete"), vec!["repository:a:pull,push", "repository:a:delete"]),
            (
                Some("registry:catalog:* repository:b:pull"),
                vec!["repository:a:pull,push", "registry:catalog:*", "repository:b:pull"],
            ),
        ];
        for (challenged, expected) in table {
            assert_eq!(Scopes::push("a").with(challenged), expected, "{challenged:?}");
        }
    }

    #[test]
    fn a_token_lives_as_long_as_its_answer_says_or_a_minute() {
        for (said, seconds) in [(None, 60), (Some(0), 60), (Some(10), 10), (Some(900), 900), (Some(u64::MAX), 86_400)] {
            assert_eq!(life(said), Duration::from_secs(seconds), "{said:?}");
        }
    }

    #[test]
    fn a_login_goes_to_a_token_server_in_plain_text_only_where_the_registry_is_spoken_to_so() {
        let server = |origin: &str, realm: &str, has_login| token_server(&origin.parse().unwrap(), realm, has_login);
        let (https, http) = ("https://r.example/", "http://r.example/");
        for (origin, realm, has_login) in [
            (https, "https://auth.example/token", true),
            (http, "https://auth.example/token", true),
            (http, "http://auth.example/token", true),
            (https, "http://auth.example/token", false),
            ("https://localhost:5000/", "http://127.0.0.1:5001/token", true),
        ] {
            assert_eq!(server(origin, realm, has_login).unwrap().as_str(), realm, "{origin} {has_login}");
        }
        // Without a login, too, nobody is led to what only this machine can reach.
        assert!(server(https, "http://169.254.169.254/latest/api/token", false).is_err());
        for (origin, realm, reason) in [
            (https, "http://auth.example/token", "in plain text"),
            ("https://localhost/", "http://auth.example/token", "in plain text"),
            (https, "ftp://auth.example/token", "the scheme ftp"),
            (http, "file:///etc/passwd", "the scheme file"),
            (https, "/token", "names the token server '/token'"),
            (https, "https://169.254.169.254/latest", "of a metadata server"),
            ("http://localhost:5000/", "http://169.254.169.254/latest", "of a metadata server"),
            (https, "https://127.0.0.1:6443/", "the local address 127.0.0.1:6443"),
        ] {
            let error = server(origin, realm, true).unwrap_err();
            assert!(error.contains(reason), "{realm}: {error}");
        }
    }

    #[test]
    fn authorizations_print_no_secret() {
        let authorization = Authorization::basic("user", &Secret::new("hunter2"));
        assert_eq!(authorization.value().unwrap(), "Basic dXNlcjpodW50ZXIy");
        assert!(!format!("{authorization:?} {:?}", authorization.value()).contains("dXNl"));
    }
}
