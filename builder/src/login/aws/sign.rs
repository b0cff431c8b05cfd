//! Signature Version 4: how requests to AWS say who makes them.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use yadokari_registry::Secret;

use crate::image::rfc3339;

/// A key of AWS, for good or for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) id: String,
    pub(super) secret: Secret,
    pub(super) session: Option<Secret>,
}

/// What a POST of `body` to the root of a host is signed for.
pub(super) struct Signing<'a> {
    pub(super) service: &'a str,
    pub(super) region: &'a str,
    /// All headers that are signed but the date and the session: lower case, sorted together with these.
    pub(super) headers: Vec<(&'a str, &'a str)>,
    pub(super) body: &'a str,
    /// Seconds since 1970.
    pub(super) now: i64,
}

impl Signing<'_> {
    /// The headers of the date, of the session where there is one, and of the signature.
    pub(super) fn sign(&self, keys: &Keys) -> Vec<(&'static str, Secret)> {
        let time: String = rfc3339(self.now).chars().filter(|c| !matches!(c, '-' | ':')).collect();
        let date = &time[..time.find('T').unwrap_or(time.len())];
        let mut added = vec![("x-amz-date", Secret::new(time.as_str()))];
        added.extend(keys.session.iter().map(|session| ("x-amz-security-token", session.clone())));
        let mut headers = self.headers.clone();
        headers.extend(added.iter().map(|(name, value)| (*name, value.expose())));
        headers.sort_unstable();
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        let names = names.join(";");
        let lines = headers.iter().map(|(name, value)| format!("{name}:{value}\n"));
        let lines = Secret::new(lines.collect::<String>());
        let canonical = Secret::new(format!("POST\n/\n\n{}\n{names}\n{}", lines.expose(), hash(self.body)));
        let scope = format!("{date}/{}/{}/aws4_request", self.region, self.service);
        let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hash(canonical.expose()));
        let first = Secret::new(format!("AWS4{}", keys.secret.expose()));
        let parts = [date, self.region, self.service, "aws4_request"];
        let key = parts.iter().fold(first.expose().as_bytes().to_vec(), |key, part| mac(&key, part));
        let signature = hex(&mac(&key, &to_sign));
        let credential = format!("{}/{scope}", keys.id);
        let value = format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}");
        added.push(("authorization", Secret::new(value)));
        added
    }
}

fn hash(text: &str) -> String {
    hex(&Sha256::digest(text))
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_signed_as_in_the_specifications_example() {
        let signing = Signing {
            service: "iam",
            region: "us-east-1",
            headers: vec![
                ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
                ("host", "iam.amazonaws.com"),
            ],
            body: "Action=ListUsers&Version=2010-05-08",
            now: 1_315_611_360,
        };
        let secret = Secret::new("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY");
        let keys = Keys { id: "AKIDEXAMPLE".into(), secret, session: None };
        let headers = signing.sign(&keys);
        assert_eq!(headers[0].1.expose(), "20110909T233600Z");
        assert_eq!(
            headers[1].1.expose(),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20110909/us-east-1/iam/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date, \
             Signature=ced6826de92d2bdeed8f846f0bf508e8559e98e4b0199114b84c54174deb456c"
        );
    }
}
