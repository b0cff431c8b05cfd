//! Google's registries: Artifact Registry and what is left of Container Registry.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use yadokari_registry::{Client, Lease, Login, Provider, Secret};

use super::cloud::{self, Variable, is_below};
use crate::sandbox::Gate;

/// The scope that tokens are for.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// A token of the metadata server, which is a node's or, by workload identity, a pod's; or what the file of
/// `GOOGLE_APPLICATION_CREDENTIALS` is good for.
#[derive(Debug)]
pub(crate) struct Google {
    metadata: String,
    file: Option<Result<File, String>>,
    gate: Gate,
}

#[derive(Debug)]
enum File {
    /// A service account's key, which registries take as it is.
    Key(Secret),
    /// Where a token of somebody else's is, and who makes one of Google's of it.
    Federated(Federated),
}

#[derive(Debug, Deserialize)]
struct Federated {
    audience: String,
    subject_token_type: String,
    token_url: String,
    credential_source: TokenSource,
    service_account_impersonation_url: Option<String>,
}

#[derive(Debug, Deserialize)]
struct TokenSource {
    file: String,
}

#[derive(Deserialize)]
struct Token {
    access_token: Secret,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Impersonated {
    access_token: Secret,
}

impl Google {
    pub(crate) fn new(variable: Variable<'_>, gate: &Gate) -> Self {
        let metadata = variable("GCE_METADATA_HOST").unwrap_or_else(|| "metadata.google.internal".into());
        let file = variable("GOOGLE_APPLICATION_CREDENTIALS").map(|path| File::read(&path));
        Self { metadata: format!("http://{metadata}"), file, gate: gate.clone() }
    }

    /// `None` where there is no such server: the registries have public images, too.
    async fn token(&self, client: &Client) -> Result<Option<Token>, String> {
        let url = format!("{}/computeMetadata/v1/instance/service-accounts/default/token", self.metadata);
        let request = cloud::get(&url, &[("Metadata-Flavor", "Google")])?;
        cloud::near_json(client, request).await
    }

    async fn federated(&self, client: &Client, given: &Federated) -> Result<Token, String> {
        let subject = cloud::token_file(&self.gate, &given.credential_source.file).await?;
        let fields = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("requested_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("audience", &given.audience),
            ("scope", SCOPE),
            ("subject_token_type", &given.subject_token_type),
            ("subject_token", subject.expose()),
        ];
        let token: Token = cloud::far(client, cloud::form(&given.token_url, &fields, &[])?).await?;
        let Some(url) = &given.service_account_impersonation_url else {
            return Ok(token);
        };
        let request = cloud::get(url, &[("content-type", "application/json")])?;
        let bearer = Secret::new(format!("Bearer {}", token.access_token.expose()));
        let body = serde_json::json!({ "scope": [SCOPE] }).to_string();
        let account: Impersonated = cloud::far(client, request.authorization(bearer).post(body)).await?;
        // What is asked for without a lifetime lives an hour, and no longer than what it was made of.
        let expires_in = Some(token.expires_in.unwrap_or(3600).min(3600));
        Ok(Token { access_token: account.access_token, expires_in })
    }
}

impl File {
    fn read(path: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Kind {
            r#type: String,
        }
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
        let bad = || format!("{path} is not the JSON of Google's credentials");
        let kind: Kind = serde_json::from_str(&text).map_err(|_| bad())?;
        match kind.r#type.as_str() {
            "service_account" => Ok(Self::Key(Secret::new(text))),
            "external_account" => {
                let given = serde_json::from_str(&text);
                given.map(Self::Federated).map_err(|_| format!("{path}: only tokens in files can be exchanged"))
            }
            kind => Err(format!("{path} is of the type '{kind}', which is not known here")),
        }
    }
}

#[async_trait]
impl Provider for Google {
    fn name(&self) -> String {
        match &self.file {
            Some(_) => "GOOGLE_APPLICATION_CREDENTIALS".into(),
            None => "Google's metadata server".into(),
        }
    }

    fn covers(&self, registry: &str) -> bool {
        registry == "gcr.io" || ["gcr.io", "pkg.dev"].iter().any(|suffix| is_below(registry, suffix))
    }

    async fn login(&self, client: &Client, _: &str) -> Result<Option<Lease>, String> {
        let token = match &self.file {
            Some(Err(reason)) => return Err(reason.clone()),
            Some(Ok(File::Key(key))) => {
                let login = Login::Password { user: "_json_key".into(), password: key.clone() };
                return Ok(Some(Lease { login, life: None }));
            }
            Some(Ok(File::Federated(given))) => Some(self.federated(client, given).await?),
            None => self.token(client).await?,
        };
        Ok(token.map(|token| {
            let login = Login::Password { user: "oauth2accesstoken".into(), password: token.access_token };
            Lease { login, life: token.expires_in.map(Duration::from_secs) }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::cloud::fake::Fake;
    use super::*;

    fn client() -> Client {
        Client::new(Default::default()).unwrap()
    }

    fn google(variables: &[(&str, &str)]) -> Google {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Google::new(&variable, &Gate::default())
    }

    #[test]
    fn googles_registries_are_known_by_their_exact_names() {
        let table = [
            ("gcr.io", true),
            ("eu.gcr.io", true),
            ("europe-docker.pkg.dev", true),
            ("gcr.io.evil", false),
            ("evilgcr.io", false),
            ("pkg.dev.evil", false),
            ("docker.io", false),
        ];
        for (registry, expected) in table {
            assert_eq!(google(&[]).covers(registry), expected, "{registry}");
        }
    }

    #[tokio::test]
    async fn the_metadata_servers_token_is_a_login() {
        let fake = Fake::serve(&[(
            "GET /computeMetadata/v1/instance/service-accounts/default/token HTTP/1.1",
            r#"{"access_token":"ya29.planted","expires_in":3599,"token_type":"Bearer"}"#,
        )])
        .await;
        let host = fake.url.strip_prefix("http://").unwrap();
        let google = google(&[("GCE_METADATA_HOST", host)]);
        let lease = google.login(&client(), "gcr.io").await.unwrap().unwrap();
        let password = Secret::new("ya29.planted");
        assert_eq!(lease.login, Login::Password { user: "oauth2accesstoken".into(), password });
        assert_eq!(lease.life, Some(Duration::from_secs(3599)));
        assert!(fake.asked()[0].contains("\nmetadata-flavor: Google\n"), "{:?}", fake.asked());
    }

    #[tokio::test]
    async fn outside_of_googles_cloud_public_images_are_pulled_without_a_login() {
        let google = google(&[("GCE_METADATA_HOST", "127.0.0.1:1")]);
        assert!(google.login(&client(), "gcr.io").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_service_accounts_key_is_a_login_itself() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.json").display().to_string();
        let text = r#"{"type": "service_account", "private_key": "planted"}"#;
        std::fs::write(&path, text).unwrap();
        let lease = google(&[("GOOGLE_APPLICATION_CREDENTIALS", &path)]).login(&client(), "gcr.io").await;
        let login = Login::Password { user: "_json_key".into(), password: Secret::new(text) };
        assert_eq!(lease.unwrap().unwrap().login, login);
        std::fs::write(&path, r#"{"type": "authorized_user", "refresh_token": "planted"}"#).unwrap();
        let error = google(&[("GOOGLE_APPLICATION_CREDENTIALS", &path)]).login(&client(), "gcr.io").await.unwrap_err();
        assert!(error.contains("authorized_user") && !error.contains("planted"), "{error}");
    }

    #[tokio::test]
    async fn a_workload_identity_file_is_exchanged() {
        let fake = Fake::serve(&[
            ("POST /v1/token HTTP/1.1", r#"{"access_token":"federated","expires_in":3600}"#),
            (
                "POST /v1/account:generateAccessToken HTTP/1.1",
                r#"{"accessToken":"account","expireTime":"2026-01-01T00:00:00Z"}"#,
            ),
        ])
        .await;
        let directory = tempfile::tempdir().unwrap();
        let (path, token) = (directory.path().join("file.json"), directory.path().join("token"));
        std::fs::write(&token, "subject\n").unwrap();
        let text = serde_json::json!({
            "type": "external_account",
            "audience": "//iam.googleapis.com/pool",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{}/v1/token", fake.url),
            "credential_source": {"file": token},
            "service_account_impersonation_url": format!("{}/v1/account:generateAccessToken", fake.url),
        });
        std::fs::write(&path, text.to_string()).unwrap();
        let google = google(&[("GOOGLE_APPLICATION_CREDENTIALS", &path.display().to_string())]);
        let lease = google.login(&client(), "europe-docker.pkg.dev").await.unwrap().unwrap();
        let password = Secret::new("account");
        assert_eq!(lease.login, Login::Password { user: "oauth2accesstoken".into(), password });
        let asked = fake.asked();
        assert!(asked[0].contains("subject_token=subject") && asked[0].contains("audience=%2F%2Fiam."), "{}", asked[0]);
        assert!(asked[1].contains("\nauthorization: Bearer federated\n"), "{}", asked[1]);
    }
}
