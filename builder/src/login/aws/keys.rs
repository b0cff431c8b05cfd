//! Where keys of AWS come from, in the order of its own programs.

use serde::Deserialize;
use yadokari_registry::{Client, Request, Secret};

use super::super::cloud::{self, Variable};
use super::sign::Keys;
use crate::sandbox::Gate;

/// Why there are no keys.
const NONE: &str = "there are no keys: AWS_ACCESS_KEY_ID, AWS_WEB_IDENTITY_TOKEN_FILE and a container's endpoint are not set, no \
                    shared file has the profile, and no metadata server answers";

/// What the environment says about keys.
#[derive(Debug)]
pub(super) struct KeySource {
    fixed: Option<Keys>,
    /// Token file, role, name of the session.
    web_identity: Option<(String, String, String)>,
    /// The URL, and the token or its file.
    container: Option<(String, Option<Secret>, Option<String>)>,
    /// Keys of the shared file, which is read once.
    shared: Option<Keys>,
    metadata: Option<String>,
    /// The Security Token Service, if not that of the region.
    sts: Option<String>,
    gate: Gate,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Issued {
    access_key_id: String,
    secret_access_key: Secret,
    #[serde(alias = "SessionToken")]
    token: Secret,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Assumed {
    assume_role_with_web_identity_response: Response,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    assume_role_with_web_identity_result: Outcome,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Outcome {
    credentials: Issued,
}

impl KeySource {
    pub(super) fn new(variable: Variable<'_>, gate: &Gate) -> Self {
        let keys = || {
            let session = variable("AWS_SESSION_TOKEN").map(Secret::new);
            let secret = Secret::new(variable("AWS_SECRET_ACCESS_KEY")?);
            Some(Keys { id: variable("AWS_ACCESS_KEY_ID")?, secret, session })
        };
        let web_identity = || {
            let session = variable("AWS_ROLE_SESSION_NAME").unwrap_or_else(|| "yadokari".into());
            Some((variable("AWS_WEB_IDENTITY_TOKEN_FILE")?, variable("AWS_ROLE_ARN")?, session))
        };
        let relative = || Some(format!("http://169.254.170.2{}", variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")?));
        let url = relative().or_else(|| variable("AWS_CONTAINER_CREDENTIALS_FULL_URI").filter(|url| is_near(url)));
        let token = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(Secret::new);
        let container = url.map(|url| (url, token, variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")));
        let shared = shared_file(variable).and_then(|path| std::fs::read_to_string(path).ok());
        let profile = variable("AWS_PROFILE").unwrap_or_else(|| "default".into());
        let is_off = variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let metadata = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        let metadata = metadata.unwrap_or_else(|| "http://169.254.169.254".into());
        Self {
            fixed: keys(),
            web_identity: web_identity(),
            container,
            shared: shared.and_then(|text| profile_keys(&Secret::new(text), &profile)),
            metadata: (!is_off).then(|| metadata.trim_end_matches('/').to_owned()),
            sts: variable("AWS_ENDPOINT_URL_STS"),
            gate: gate.clone(),
        }
    }

    /// The keys of the first place that there is. What is there and fails is an error: going on would use another role.
    pub(super) async fn find(&self, client: &Client, region: &str, domain: &str) -> Result<Keys, String> {
        if let Some(keys) = &self.fixed {
            return Ok(keys.clone());
        }
        if let Some((file, role, session)) = &self.web_identity {
            let at = self.sts.clone().unwrap_or_else(|| format!("https://sts.{region}.{domain}"));
            let token = cloud::token_file(&self.gate, file).await?;
            let fields = [
                ("Action", "AssumeRoleWithWebIdentity"),
                ("Version", "2011-06-15"),
                ("RoleArn", role),
                ("RoleSessionName", session),
                ("WebIdentityToken", token.expose()),
            ];
            let request = cloud::form(&format!("{at}/"), &fields, &[("accept", "application/json")])?;
            let assumed: Assumed = cloud::far(client, request).await?;
            let outcome = assumed.assume_role_with_web_identity_response.assume_role_with_web_identity_result;
            return Ok(outcome.credentials.keys());
        }
        if let Some(keys) = &self.shared {
            return Ok(keys.clone());
        }
        if let Some((url, token, file)) = &self.container {
            let token = match file {
                Some(file) => Some(cloud::token_file(&self.gate, file).await?),
                None => token.clone(),
            };
            let request = cloud::get(url, &[])?;
            let request = token.map_or(request.clone(), |token| request.authorization(token));
            let issued = cloud::near_json::<Issued>(client, request).await?;
            return Ok(issued.ok_or("the container's endpoint does not answer")?.keys());
        }
        match &self.metadata {
            Some(metadata) => machine(client, metadata).await,
            None => Err("there are no keys, and AWS_EC2_METADATA_DISABLED is set".into()),
        }
    }
}

impl Issued {
    fn keys(self) -> Keys {
        Keys { id: self.access_key_id, secret: self.secret_access_key, session: Some(self.token) }
    }
}

/// The role of the machine, by the second version of its metadata service, which wants a session.
async fn machine(client: &Client, metadata: &str) -> Result<Keys, String> {
    let life = [("x-aws-ec2-metadata-token-ttl-seconds", "300")];
    let request = cloud::get(&format!("{metadata}/latest/api/token"), &life)?.put("");
    let token = cloud::near(client, request).await?.ok_or(NONE)?;
    let session = [("x-aws-ec2-metadata-token", token.expose())];
    let roles = format!("{metadata}/latest/meta-data/iam/security-credentials/");
    let role = cloud::near(client, cloud::get(&roles, &session)?).await?.ok_or(NONE)?;
    let role = role.expose().lines().next().unwrap_or_default().trim();
    if role.is_empty() {
        return Err("the machine has no role".into());
    }
    let request: Request = cloud::get(&format!("{roles}{role}"), &session)?;
    Ok(cloud::near_json::<Issued>(client, request).await?.ok_or(NONE)?.keys())
}

/// Whether keys may be asked for there in plain HTTP: this machine and its link, as AWS's own programs have it.
fn is_near(url: &str) -> bool {
    let near = ["127.0.0.1", "localhost", "[::1]", "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"];
    let host = url.strip_prefix("http://").map(|rest| rest.split('/').next().unwrap_or_default());
    url.starts_with("https://")
        || host.is_some_and(|host| near.iter().any(|near| host == *near || host.starts_with(&format!("{near}:"))))
}

/// The file that the AWS programs share.
pub(crate) fn shared_file(variable: Variable<'_>) -> Option<String> {
    variable("AWS_SHARED_CREDENTIALS_FILE").or_else(|| Some(format!("{}/.aws/credentials", variable("HOME")?)))
}

/// The keys of a profile of the shared file.
fn profile_keys(text: &Secret, profile: &str) -> Option<Keys> {
    let mut is_ours = false;
    let (mut id, mut secret, mut session) = (None, None, None);
    for line in text.expose().lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            is_ours = name.trim() == profile;
        } else if is_ours && let Some((name, value)) = line.split_once('=') {
            match name.trim().to_ascii_lowercase().as_str() {
                "aws_access_key_id" => id = Some(value.trim().to_owned()),
                "aws_secret_access_key" => secret = Some(Secret::new(value.trim())),
                "aws_session_token" => session = Some(Secret::new(value.trim())),
                _ => {}
            }
        }
    }
    Some(Keys { id: id?, secret: secret?, session })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_of_the_shared_file_has_keys() {
        let text = "# comment\n[other]\naws_access_key_id = no\naws_secret_access_key = no\n\n[default]\n\
                    aws_access_key_id=AKID\nregion = x\nAWS_SECRET_ACCESS_KEY = planted\n";
        let text = Secret::new(text);
        let expected = Keys { id: "AKID".into(), secret: Secret::new("planted"), session: None };
        assert_eq!(profile_keys(&text, "default"), Some(expected));
        assert_eq!(profile_keys(&text, "absent"), None);
        assert_eq!(profile_keys(&text, "other").map(|keys| keys.id), Some("no".into()));
    }

    #[test]
    fn keys_are_asked_for_in_plain_http_nearby_only() {
        for (url, expected) in [
            ("http://169.254.170.23/v1/credentials", true),
            ("http://127.0.0.1:8080/x", true),
            ("https://anywhere.example/x", true),
            ("http://anywhere.example/x", false),
            ("http://127.0.0.1.evil/x", false),
            ("http://localhost.evil/x", false),
        ] {
            assert_eq!(is_near(url), expected, "{url}");
        }
    }
}
