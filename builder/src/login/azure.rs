//! Azure Container Registry: a token of Microsoft Entra ID is exchanged for one of the registry's.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use yadokari_registry::{Client, Lease, Login, Provider, Secret};

use super::cloud::{self, Variable, is_below};
use crate::sandbox::Gate;

/// What a registry's refresh token lives.
const LIFE: Duration = Duration::from_secs(3 * 3600);

/// The clouds: the suffix of their registries, who logs in there, and what tokens are for.
const CLOUDS: [(&str, &str, &str); 4] = [
    ("azurecr.io", "https://login.microsoftonline.com", "https://containerregistry.azure.net"),
    ("azurecr.cn", "https://login.chinacloudapi.cn", "https://management.chinacloudapi.cn"),
    ("azurecr.us", "https://login.microsoftonline.us", "https://management.usgovcloudapi.net"),
    ("azurecr.de", "https://login.microsoftonline.de", "https://management.microsoftazure.de"),
];

/// A service principal's secret, a federated token, or the metadata server's managed identity, by Azure's variables.
#[derive(Debug)]
pub(crate) struct Azure {
    tenant: Option<String>,
    client_id: Option<String>,
    secret: Option<Secret>,
    token_file: Option<String>,
    authority: Option<String>,
    metadata: String,
    /// Where a registry is, if not at its own name.
    registry: Option<String>,
    gate: Gate,
}

#[derive(Deserialize)]
struct Token {
    access_token: Secret,
}

#[derive(Deserialize)]
struct Exchanged {
    refresh_token: Secret,
}

impl Azure {
    pub(crate) fn new(variable: Variable<'_>, gate: &Gate) -> Self {
        Self {
            tenant: variable("AZURE_TENANT_ID"),
            client_id: variable("AZURE_CLIENT_ID"),
            secret: variable("AZURE_CLIENT_SECRET").map(Secret::new),
            token_file: variable("AZURE_FEDERATED_TOKEN_FILE"),
            authority: variable("AZURE_AUTHORITY_HOST"),
            metadata: "http://169.254.169.254".into(),
            registry: None,
            gate: gate.clone(),
        }
    }

    /// A token of Entra ID for the registries of a cloud.
    async fn access(&self, client: &Client, authority: &str, audience: &str) -> Result<Secret, String> {
        let (Some(tenant), Some(client_id)) = (&self.tenant, &self.client_id) else {
            return self.managed(client, audience).await;
        };
        let scope = format!("{audience}/.default");
        let mut fields = vec![("grant_type", "client_credentials"), ("client_id", client_id), ("scope", &scope)];
        let assertion = match (&self.secret, &self.token_file) {
            (Some(_), _) => None,
            (None, Some(path)) => Some(cloud::token_file(&self.gate, path).await?),
            (None, None) => return self.managed(client, audience).await,
        };
        match (&self.secret, &assertion) {
            (Some(secret), _) => fields.push(("client_secret", secret.expose())),
            (None, assertion) => {
                fields.push(("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"));
                fields.extend(assertion.as_ref().map(|token| ("client_assertion", token.expose())));
            }
        }
        let authority = self.authority.as_deref().unwrap_or(authority).trim_end_matches('/');
        let request = cloud::form(&format!("{authority}/{tenant}/oauth2/v2.0/token"), &fields, &[])?;
        Ok(cloud::far::<Token>(client, request).await?.access_token)
    }

    async fn managed(&self, client: &Client, audience: &str) -> Result<Secret, String> {
        let mut query = vec![("api-version", "2018-02-01"), ("resource", audience)];
        // A machine may have several identities.
        query.extend(self.client_id.as_deref().map(|id| ("client_id", id)));
        let url = format!("{}/metadata/identity/oauth2/token?{}", self.metadata, cloud::encode(&query));
        let request = cloud::get(&url, &[("Metadata", "true")])?;
        let token = cloud::near_json::<Token>(client, request).await?;
        let none =
            "AZURE_CLIENT_ID, AZURE_TENANT_ID and a secret or token file are not set, and no metadata server answers";
        Ok(token.ok_or(none)?.access_token)
    }
}

#[async_trait]
impl Provider for Azure {
    fn name(&self) -> String {
        "Azure".into()
    }

    fn covers(&self, registry: &str) -> bool {
        CLOUDS.iter().any(|(suffix, ..)| is_below(registry, suffix))
    }

    async fn login(&self, client: &Client, registry: &str) -> Result<Option<Lease>, String> {
        let Some((_, authority, audience)) = CLOUDS.iter().find(|(suffix, ..)| is_below(registry, suffix)) else {
            return Ok(None);
        };
        let access = self.access(client, authority, audience).await?;
        let mut fields = vec![("grant_type", "access_token"), ("service", registry), ("access_token", access.expose())];
        fields.extend(self.tenant.as_deref().map(|tenant| ("tenant", tenant)));
        let at = self.registry.clone().unwrap_or_else(|| format!("https://{registry}"));
        let exchanged: Exchanged =
            cloud::far(client, cloud::form(&format!("{at}/oauth2/exchange"), &fields, &[])?).await?;
        Ok(Some(Lease { login: Login::Identity(exchanged.refresh_token), life: Some(LIFE) }))
    }
}

#[cfg(test)]
mod tests {
    use super::cloud::fake::Fake;
    use super::*;

    const ROUTES: &[(&str, &str)] = &[
        (
            "POST /tenant-1/oauth2/v2.0/token HTTP/1.1",
            r#"{"token_type":"Bearer","expires_in":3599,"access_token":"entra"}"#,
        ),
        ("GET /metadata/identity/oauth2/token?", r#"{"access_token":"managed","expires_in":"86399","resource":"x"}"#),
        ("POST /oauth2/exchange HTTP/1.1", r#"{"refresh_token":"registrys"}"#),
    ];

    async fn ask(variables: &[(&str, &str)]) -> (Result<Option<Login>, String>, Vec<String>) {
        let fake = Fake::serve(ROUTES).await;
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        let mut azure = Azure::new(&variable, &Gate::default());
        (azure.authority, azure.metadata) = (Some(format!("{}/", fake.url)), fake.url.clone());
        azure.registry = Some(fake.url.clone());
        let client = Client::new(Default::default()).unwrap();
        let lease = azure.login(&client, "team.azurecr.io").await;
        (lease.map(|lease| lease.map(|lease| lease.login)), fake.asked())
    }

    #[tokio::test]
    async fn a_service_principal_is_exchanged_at_the_registry() {
        let variables =
            [("AZURE_TENANT_ID", "tenant-1"), ("AZURE_CLIENT_ID", "id"), ("AZURE_CLIENT_SECRET", "planted&")];
        let (login, asked) = ask(&variables).await;
        assert_eq!(login, Ok(Some(Login::Identity(Secret::new("registrys")))));
        let scope = "scope=https%3A%2F%2Fcontainerregistry.azure.net%2F.default";
        assert!(asked[0].ends_with(&format!("client_id=id&{scope}&client_secret=planted%26")), "{}", asked[0]);
        let form = "grant_type=access_token&service=team.azurecr.io&access_token=entra&tenant=tenant-1";
        assert!(asked[1].ends_with(form), "{}", asked[1]);
    }

    #[tokio::test]
    async fn a_federated_token_stands_for_a_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "jwt\n").unwrap();
        let path = path.display().to_string();
        let variables =
            [("AZURE_TENANT_ID", "tenant-1"), ("AZURE_CLIENT_ID", "id"), ("AZURE_FEDERATED_TOKEN_FILE", path.as_str())];
        let (login, asked) = ask(&variables).await;
        assert_eq!(login, Ok(Some(Login::Identity(Secret::new("registrys")))));
        assert!(asked[0].ends_with("jwt-bearer&client_assertion=jwt"), "{}", asked[0]);
    }

    #[tokio::test]
    async fn a_managed_identity_needs_no_variables() {
        let (login, asked) = ask(&[]).await;
        assert_eq!(login, Ok(Some(Login::Identity(Secret::new("registrys")))));
        assert!(asked[0].contains("\nmetadata: true\n") && asked[1].ends_with("access_token=managed"), "{asked:?}");
    }

    #[test]
    fn azures_registries_are_known_by_their_exact_names() {
        let azure = Azure::new(&|_| None, &Gate::default());
        for (registry, expected) in [
            ("team.azurecr.io", true),
            ("team.azurecr.cn", true),
            ("team.azurecr.io.evil", false),
            ("azurecr.io", false),
        ] {
            assert_eq!(azure.covers(registry), expected, "{registry}");
        }
    }
}
