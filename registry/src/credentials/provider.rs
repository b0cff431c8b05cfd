//! Sources that have to be asked: helper programs, and clouds.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{Login, Outcome};
use crate::Client;

/// How long it is remembered that a provider had no login, or failed.
const FRUITLESS: Duration = Duration::from_secs(60);

/// Somebody who can be asked for a login.
///
/// A provider is asked for the first request that needs it and no earlier. Its answer is kept until nine tenths of its
/// life are over, or until a registry refuses it; so it need not keep anything itself. It is asked one thing at a time for each
/// registry.
#[async_trait]
pub trait Provider: fmt::Debug + Send + Sync {
    /// What messages call it.
    fn name(&self) -> String;

    /// Whether it may have a login for a registry, `host[:port]`, or `docker.io`. It is not asked for others.
    fn covers(&self, registry: &str) -> bool;

    /// The login, or `None` where it definitely has none. The reason of a failure holds no secret: it is shown. The
    /// client is for requests that the answer takes.
    async fn login(&self, client: &Client, registry: &str) -> Result<Option<Lease>, String>;
}

/// A login, and for how long.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The login.
    pub login: Login,
    /// How long it is good from when it was asked for; `None` where nobody knows.
    pub life: Option<Duration>,
}

/// A provider, and what it said.
#[derive(Debug)]
pub(crate) struct Asked {
    provider: Arc<dyn Provider>,
    answers: Mutex<HashMap<String, Slot>>,
}

/// What was said of one registry. The lock is held while the provider is asked, so that many requests ask it once, and
/// none of another registry waits.
type Slot = Arc<tokio::sync::Mutex<Option<Answer>>>;

#[derive(Debug)]
struct Answer {
    login: Result<Option<Login>, String>,
    until: Option<Instant>,
}

impl Asked {
    pub(super) fn new(provider: Arc<dyn Provider>) -> Self {
        Self { provider, answers: Mutex::default() }
    }

    pub(crate) fn name(&self) -> String {
        self.provider.name()
    }

    pub(super) fn covers(&self, registry: &str) -> bool {
        self.provider.covers(registry)
    }

    fn slot(&self, registry: &str) -> Slot {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(answers.entry(registry.to_owned()).or_default())
    }

    /// The login: what was said before, unless that is over or the registry refused it, which is `stale`. Besides, what
    /// came of it; of a failure that is not new nobody needs to be told, which the last answer says.
    pub(crate) async fn login(
        &self,
        client: &Client,
        registry: &str,
        stale: Option<&Login>,
    ) -> (Option<Login>, Outcome, bool) {
        let slot = self.slot(registry);
        let mut slot = slot.lock().await;
        let now = Instant::now();
        let known = slot.as_ref().filter(|answer| {
            let is_stale = matches!((&answer.login, stale), (Ok(Some(login)), Some(stale)) if login == stale);
            !is_stale && answer.until.is_none_or(|until| now < until)
        });
        if let Some(answer) = known {
            let (login, outcome) = answer.told();
            return (login, outcome, false);
        }
        let answer = match self.provider.login(client, registry).await {
            Ok(Some(Lease { login, life })) => {
                Answer { login: Ok(Some(login)), until: life.map(|life| now + life.mul_f64(0.9)) }
            }
            Ok(None) => Answer { login: Ok(None), until: Some(now + FRUITLESS) },
            Err(reason) => Answer { login: Err(reason), until: Some(now + FRUITLESS) },
        };
        let (login, outcome) = answer.told();
        *slot = Some(answer);
        (login, outcome, true)
    }
}

impl Answer {
    fn told(&self) -> (Option<Login>, Outcome) {
        match &self.login {
            Ok(Some(login)) => (Some(login.clone()), Outcome::Used(login.kind())),
            Ok(None) => (None, Outcome::Nothing),
            Err(reason) => (None, Outcome::Failed(reason.clone())),
        }
    }
}
