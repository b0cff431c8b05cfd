//! Who is asked for logins that no configuration holds: helper programs, variables, and the clouds.
//!
//! All of it happens in the builder, never in a RUN, and only when a registry asks for a login. The clouds need no program
//! of theirs: a token is exchanged over HTTP, with the client's proxies and authorities.

mod aws;
mod azure;
mod cloud;
mod google;
mod helper;
mod variables;

use std::sync::Arc;

use yadokari_registry::Provider;

pub(crate) use cloud::Variable;
pub(crate) use helper::{Helper, Programs};
pub(crate) use variables::Variables;

use crate::sandbox::Gate;

/// A cloud whose logins need no program, by the name of `--credential-helpers`, or by those of the helper programs that
/// do the same.
pub(crate) fn cloud(name: &str, variable: Variable<'_>, gate: &Gate) -> Option<Arc<dyn Provider>> {
    Some(match name {
        "google" | "gcr" | "gcloud" => Arc::new(google::Google::new(variable, gate)),
        "ecr" | "ecr-login" => Arc::new(aws::Aws::new(variable, gate)),
        "acr" | "acr-env" => Arc::new(azure::Azure::new(variable, gate)),
        _ => return None,
    })
}

/// The files that clouds' logins are made of, which are nobody else's business.
pub(crate) fn secret_files(variable: Variable<'_>) -> Vec<String> {
    let names = [
        "GOOGLE_APPLICATION_CREDENTIALS",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AZURE_FEDERATED_TOKEN_FILE",
    ];
    names.iter().filter_map(|name| variable(name)).chain(aws::shared_file(variable)).collect()
}
