//! `--run-ca-bundle`: whom commands trust.

use std::path::PathBuf;

use clap::Args;

use super::args::path;
use super::tls::read;
use crate::Error;
use crate::trust::RunAuthorities;

/// What commands find besides the image.
#[derive(Debug, Default, Args)]
pub(super) struct TrustFlags {
    /// Let RUN steps trust the certificate authorities of a PEM file beside the public ones. No image, history or cache key holds
    /// it: steps find it in a file of their own, and SSL_CERT_FILE, CURL_CA_BUNDLE, APT_CONFIG and others name that.
    #[arg(long, value_name = "FILE", value_parser = path())]
    run_ca_bundle: Option<PathBuf>,
}

impl TrustFlags {
    /// The authorities, if there are any.
    pub(super) fn authorities(&self) -> Result<Option<RunAuthorities>, Error> {
        let Some(file) = super::given(&self.run_ca_bundle) else { return Ok(None) };
        let unusable =
            |error: yadokari_registry::Error| Error::Usage { flag: "--run-ca-bundle", message: error.to_string() };
        let bundle = read(&file)?.beside_public_ones().map_err(unusable)?;
        Ok(Some(RunAuthorities::new(bundle)))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_bundle_is_read_once_and_must_hold_certificates() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ca.pem");
        let authorities = |path: &std::path::Path| {
            TrustFlags { run_ca_bundle: Some(path.to_owned()) }.authorities().map_err(|error| error.to_string())
        };
        assert_eq!(TrustFlags::default().authorities().unwrap(), None);
        assert_eq!(authorities("".as_ref()), Ok(None));
        assert!(authorities(&file).unwrap_err().contains("ca.pem"));
        for text in ["", "no certificate\n", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            fs::write(&file, text).unwrap();
            assert!(authorities(&file).unwrap_err().contains("ca.pem"), "{text}");
        }
        let own = include_str!("../../../registry/src/tests/tls/ca.crt");
        fs::write(&file, own).unwrap();
        let found = authorities(&file).unwrap().unwrap();
        let [bundle, _] = found.mounts();
        let crate::sandbox::MountKind::File { content, .. } = bundle.kind else { panic!() };
        let text = String::from_utf8(content.expose().to_vec()).unwrap();
        assert!(text.ends_with(own) && text.matches("BEGIN CERTIFICATE").count() > 100, "{text}");
    }
}
