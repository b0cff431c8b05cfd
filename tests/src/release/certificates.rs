//! The authorities that the executor trusts, as a file: for programs that want one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Mozilla's list in PEM, as the lock file has it. The bundle of the machine that builds may hold more: a company's authorities
/// are no business of whoever uses the image.
pub(crate) fn certificates() -> String {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|certificate| pem(certificate)).collect()
}

fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}
