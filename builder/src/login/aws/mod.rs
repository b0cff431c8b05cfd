//! Amazon's registries, ECR: a login for twelve hours, for whoever signs the request.

mod keys;
mod sign;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use yadokari_registry::{Client, Lease, Login, Provider, Secret};

use self::keys::KeySource;
pub(crate) use self::keys::shared_file;
use self::sign::Signing;
use super::cloud::{self, Variable};
use crate::sandbox::Gate;

/// `GetAuthorizationToken`, with the keys of the environment, a web identity (IRSA), the shared file, a container's
/// endpoint (pod identity), or the machine.
#[derive(Debug)]
pub(crate) struct Aws {
    keys: KeySource,
    /// The API of ECR, if not that of the region.
    api: Option<String>,
}

/// What a registry's name says.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    region: &'a str,
    /// The domain of the region's APIs.
    domain: &'static str,
    /// The host of ECR's API.
    api: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Granted {
    authorization_data: Vec<Grant>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Grant {
    authorization_token: Secret,
    /// Seconds since 1970.
    expires_at: Option<f64>,
}

impl Aws {
    pub(crate) fn new(variable: Variable<'_>, gate: &Gate) -> Self {
        Self { keys: KeySource::new(variable, gate), api: variable("AWS_ENDPOINT_URL_ECR") }
    }
}

impl<'a> Place<'a> {
    /// Reads `ACCOUNT.dkr.ecr[-fips].REGION.amazonaws.com[.cn]`, or `ACCOUNT.dkr-ecr[-fips].REGION.on.aws`.
    fn of(registry: &'a str) -> Option<Self> {
        let (account, rest) = registry.split_once('.')?;
        if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let rest = rest.strip_prefix("dkr.ecr").or_else(|| rest.strip_prefix("dkr-ecr"))?;
        let (fips, rest) = rest.strip_prefix("-fips").map_or((false, rest), |rest| (true, rest));
        let (region, domain) = rest.strip_prefix('.')?.split_once('.')?;
        let domain = match domain {
            "amazonaws.com" | "on.aws" => "amazonaws.com",
            "amazonaws.com.cn" | "on.amazonwebservices.com.cn" => "amazonaws.com.cn",
            _ => return None,
        };
        let is_region = region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let api = if fips { format!("ecr-fips.{region}.{domain}") } else { format!("api.ecr.{region}.{domain}") };
        (is_region && !region.is_empty()).then_some(Self { region, domain, api })
    }
}

#[async_trait]
impl Provider for Aws {
    fn name(&self) -> String {
        "AWS".into()
    }

    fn covers(&self, registry: &str) -> bool {
        Place::of(registry).is_some()
    }

    async fn login(&self, client: &Client, registry: &str) -> Result<Option<Lease>, String> {
        let Some(place) = Place::of(registry) else { return Ok(None) };
        let keys = self.keys.find(client, place.region, place.domain).await?;
        let url = self.api.clone().unwrap_or_else(|| format!("https://{}", place.api));
        let host = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest).trim_end_matches('/');
        let headers = vec![
            ("content-type", "application/x-amz-json-1.1"),
            ("host", host),
            ("x-amz-target", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"),
        ];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(now.as_secs()).map_err(|_| "the clock is beyond all times")?;
        let signing =
            Signing { service: "ecr", region: place.region, headers: headers.clone(), body: "{}", now: seconds };
        let mut request = cloud::get(&format!("{}/", url.trim_end_matches('/')), &[])?.post("{}");
        for (name, value) in headers.iter().filter(|(name, _)| *name != "host") {
            request = request.header(name, value).map_err(|error| error.to_string())?;
        }
        for (name, value) in signing.sign(&keys) {
            request = match name {
                "authorization" => request.authorization(value),
                name => request.header(name, value.expose()).map_err(|error| error.to_string())?,
            };
        }
        let granted: Granted = cloud::far(client, request).await?;
        let grant = granted.authorization_data.into_iter().next().ok_or("ECR gave no authorization")?;
        let bad = "ECR's authorization is not the base64 of a user and a password";
        let bytes = STANDARD.decode(grant.authorization_token.expose()).map_err(|_| bad)?;
        let pair = Secret::new(String::from_utf8(bytes).map_err(|_| bad)?);
        let (user, password) = pair.expose().split_once(':').ok_or(bad)?;
        let login = Login::Password { user: user.into(), password: Secret::new(password) };
        let life = grant.expires_at.map(|at| Duration::from_secs_f64((at - now.as_secs_f64()).clamp(0.0, 1e6)));
        Ok(Some(Lease { login, life }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::cloud::fake::Fake;
    use super::*;

    const REGISTRY: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

    /// The token is the base64 of `AWS:planted`; it ends in the year 2100.
    const ROUTES: &[(&str, &str)] = &[
        (
            "POST / HTTP/1.1\r\naccept: application/json",
            r#"{"AssumeRoleWithWebIdentityResponse":{"AssumeRoleWithWebIdentityResult":{"Credentials":
               {"AccessKeyId":"ASIAROLE","SecretAccessKey":"s","SessionToken":"role-session","Expiration":4.1e9}}}}"#,
        ),
        (
            "POST / HTTP/1.1",
            r#"{"authorizationData":[{"authorizationToken":"QVdTOnBsYW50ZWQ=","expiresAt":4102444800.1,"proxyEndpoint":"x"}]}"#,
        ),
        ("PUT /latest/api/token HTTP/1.1", "imds-session"),
        ("GET /latest/meta-data/iam/security-credentials/ HTTP/1.1", "node-role\n"),
        (
            "GET /latest/meta-data/iam/security-credentials/node-role HTTP/1.1",
            r#"{"Code":"Success","AccessKeyId":"ASIANODE","SecretAccessKey":"s","Token":"node-session","Expiration":"x"}"#,
        ),
        (
            "GET /v1/credentials HTTP/1.1",
            r#"{"AccessKeyId":"ASIAPOD","SecretAccessKey":"s","Token":"pod-session","Expiration":"x"}"#,
        ),
    ];

    async fn ask(variables: &[(&str, &str)]) -> Vec<String> {
        let fake = Fake::serve(ROUTES).await;
        let variable = |name: &str| {
            let given = variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            let fakes = ["AWS_ENDPOINT_URL_ECR", "AWS_ENDPOINT_URL_STS", "AWS_EC2_METADATA_SERVICE_ENDPOINT"];
            given
                .map(|value| value.replace("FAKE", &fake.url))
                .or_else(|| fakes.contains(&name).then(|| fake.url.clone()))
        };
        let aws = Aws::new(&variable, &Gate::default());
        let client = Client::new(Default::default()).unwrap();
        let lease = aws.login(&client, REGISTRY).await.unwrap().unwrap();
        assert_eq!(lease.login, Login::Password { user: "AWS".into(), password: Secret::new("planted") });
        assert!(lease.life > Some(Duration::from_secs(3600)), "{:?}", lease.life);
        assert!(!format!("{aws:?}").contains("hunter2"));
        fake.asked()
    }

    /// The request for the login, which is the last one.
    fn signed_by(asked: &[String], key: &str, session: Option<&str>) {
        let last = asked.last().unwrap();
        assert!(
            last.contains("\nx-amz-target: AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken\n"),
            "{last}"
        );
        let credential = format!("authorization: AWS4-HMAC-SHA256 Credential={key}/");
        assert!(last.contains(&credential) && last.contains("/eu-west-1/ecr/aws4_request, "), "{last}");
        let signed =
            if session.is_some() { "x-amz-date;x-amz-security-token;x-amz-target" } else { "x-amz-date;x-amz-target" };
        assert!(last.contains(&format!("SignedHeaders=content-type;host;{signed}, ")), "{last}");
        let sent = last.lines().find_map(|line| line.strip_prefix("x-amz-security-token: "));
        assert_eq!(sent, session, "{last}");
        assert!(last.ends_with("\n\n{}"), "{last}");
    }

    #[tokio::test]
    async fn keys_of_the_environment_sign_the_request() {
        let asked = ask(&[("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "hunter2")]).await;
        assert_eq!(asked.len(), 1);
        signed_by(&asked, "AKID", None);
    }

    #[tokio::test]
    async fn a_web_identity_assumes_its_role() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "jwt\n").unwrap();
        let path = path.display().to_string();
        let role = "arn:aws:iam::123456789012:role/push";
        let asked = ask(&[("AWS_WEB_IDENTITY_TOKEN_FILE", &path), ("AWS_ROLE_ARN", role)]).await;
        assert!(
            asked[0].contains("Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam"),
            "{}",
            asked[0]
        );
        assert!(asked[0].ends_with("&RoleSessionName=yadokari&WebIdentityToken=jwt"), "{}", asked[0]);
        signed_by(&asked, "ASIAROLE", Some("role-session"));
    }

    #[tokio::test]
    async fn the_machines_role_is_asked_for_within_a_session() {
        let asked = ask(&[]).await;
        assert!(asked[0].contains("\nx-aws-ec2-metadata-token-ttl-seconds: 300\n"), "{}", asked[0]);
        for request in &asked[1..3] {
            assert!(request.contains("\nx-aws-ec2-metadata-token: imds-session\n"), "{request}");
        }
        signed_by(&asked, "ASIANODE", Some("node-session"));
    }

    #[tokio::test]
    async fn a_pods_identity_is_asked_for_with_its_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "pods-token").unwrap();
        let path = path.display().to_string();
        let asked = ask(&[
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "FAKE/v1/credentials"),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &path),
        ])
        .await;
        assert!(asked[0].contains("\nauthorization: pods-token\n"), "{}", asked[0]);
        signed_by(&asked, "ASIAPOD", Some("pod-session"));
    }

    #[test]
    fn amazons_registries_are_known_by_their_exact_names() {
        let place = |registry| Place::of(registry).map(|place| (place.region, place.api));
        let table = [
            (REGISTRY, Some(("eu-west-1", "api.ecr.eu-west-1.amazonaws.com"))),
            (
                "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
                Some(("us-east-1", "ecr-fips.us-east-1.amazonaws.com")),
            ),
            (
                "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
                Some(("cn-north-1", "api.ecr.cn-north-1.amazonaws.com.cn")),
            ),
            ("123456789012.dkr-ecr.eu-west-1.on.aws", Some(("eu-west-1", "api.ecr.eu-west-1.amazonaws.com"))),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil", None),
            ("123456789012.dkr.ecr.evil.example/.amazonaws.com", None),
            ("12345.dkr.ecr.eu-west-1.amazonaws.com", None),
            ("public.ecr.aws", None),
        ];
        for (registry, expected) in table {
            assert_eq!(place(registry), expected.map(|(region, api)| (region, api.to_owned())), "{registry}");
        }
    }
}
