//! Which login a repository gets, and who is told why.

use std::sync::{Arc, PoisonError};

use super::endpoint::Endpoint;
use super::transport::Connection;
use super::{Client, Notice};
use crate::Login;
use crate::credentials::{Keeper, Outcome};

impl Connection<'_> {
    /// The repository's login: that of the first candidate which has one. A helper or cloud that fails is warned of, and
    /// the next one counts. `stale` is what the registry refused: who can make a new one is asked for it.
    pub(super) async fn login(&self, stale: Option<&Login>) -> Option<Login> {
        let Endpoint { registry, repository } = self.endpoint;
        let client = Client(Arc::clone(self.client));
        let options = &self.client.options;
        let mut found = None;
        let mut outcomes = Vec::new();
        for candidate in options.credentials.candidates(registry, repository) {
            let outcome = match candidate.keeper {
                _ if found.is_some() => Outcome::NotAsked,
                Keeper::Known(login) => {
                    found = Some(login.clone());
                    Outcome::Used(login.kind())
                }
                Keeper::Asked(asked) => {
                    let (login, outcome, is_new) = asked.login(&client, registry, stale).await;
                    if let (Outcome::Failed(reason), true) = (&outcome, is_new) {
                        let text = format!("{} has no login for {registry}: {reason}", asked.name());
                        options.listener.tell(&Notice::Warning(text));
                    }
                    found = login;
                    outcome
                }
            };
            outcomes.push((candidate, outcome));
        }
        if options.listener.is_there() {
            let mut told = self.keyring().told.lock().unwrap_or_else(PoisonError::into_inner);
            if told.insert(self.endpoint.name()) {
                let text = options.credentials.explain(registry, repository, &outcomes);
                options.listener.tell(&Notice::Login(text));
            }
        }
        found
    }
}
