//! Logins in variables that are named after their registry, as Kaniko's fork has them.

use std::collections::HashMap;

use async_trait::async_trait;
use yadokari_registry::{Client, Lease, Login, Provider, Secret};

/// `KANIKO_<HOST>_USER` and `KANIKO_<HOST>_PASSWORD`, where the host is in upper case and has `_` for `.`, `-` and `:`.
/// What is not set for a host may be set for the domain above it.
#[derive(Debug)]
pub(crate) struct Variables(HashMap<String, Secret>);

impl FromIterator<(String, Secret)> for Variables {
    fn from_iter<I: IntoIterator<Item = (String, Secret)>>(variables: I) -> Self {
        let is_ours =
            |name: &str| name.starts_with("KANIKO_") && (name.ends_with("_USER") || name.ends_with("_PASSWORD"));
        // What is empty is as good as not set: jobs name secrets that they do not have.
        let is_set = |value: &Secret| !value.expose().is_empty();
        Self(variables.into_iter().filter(|(name, value)| is_ours(name) && is_set(value)).collect())
    }
}

impl Variables {
    /// The name's middle that is set for a registry, the longest first.
    fn set_for(&self, registry: &str) -> Option<String> {
        let hosts = if registry == "docker.io" { &["index.docker.io", "docker.io"][..] } else { &[registry][..] };
        let is_set = |name: &String| {
            ["USER", "PASSWORD"].iter().all(|half| self.0.contains_key(&format!("KANIKO_{name}_{half}")))
        };
        hosts.iter().flat_map(|host| names(host)).find(is_set)
    }
}

/// A host's name and those of the domains above it, as variables have them.
fn names(host: &str) -> Vec<String> {
    let labels: Vec<String> =
        host.to_ascii_uppercase().split('.').map(|label| label.replace(['-', ':'], "_")).collect();
    (0..labels.len()).map(|first| labels[first..].join("_")).collect()
}

#[async_trait]
impl Provider for Variables {
    fn name(&self) -> String {
        "the variables".into()
    }

    fn covers(&self, registry: &str) -> bool {
        self.set_for(registry).is_some()
    }

    async fn login(&self, _: &Client, registry: &str) -> Result<Option<Lease>, String> {
        let Some(name) = self.set_for(registry) else { return Ok(None) };
        let value = |half: &str| self.0.get(&format!("KANIKO_{name}_{half}"));
        let (Some(user), Some(password)) = (value("USER"), value("PASSWORD")) else { return Ok(None) };
        Ok(Some(Lease { login: Login::new(user.expose().into(), password.clone()), life: None }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_named_after_the_host_or_a_domain_above_it() {
        let set = |name: &str| {
            let halves = ["USER", "PASSWORD"].map(|half| (format!("KANIKO_{name}_{half}"), Secret::new("x")));
            halves.into_iter().collect::<Variables>()
        };
        let table = [
            ("REGISTRY_EXAMPLE_COM", "registry.example.com", true),
            ("MY_REGISTRY_EXAMPLE_COM", "my-registry.example.com", true),
            ("EXAMPLE_COM", "registry.example.com", true),
            ("REGISTRY_EXAMPLE_COM_5000", "registry.example.com:5000", true),
            ("INDEX_DOCKER_IO", "docker.io", true),
            ("DOCKER_IO", "docker.io", true),
            ("REGISTRY", "registry.example.com", false),
            ("AMPLE_COM", "registry.example.com", false),
            ("EXAMPLE_COM", "example.com.evil", false),
        ];
        for (name, registry, expected) in table {
            assert_eq!(set(name).covers(registry), expected, "{name} for {registry}");
        }
        let half = [("KANIKO_EXAMPLE_COM_USER".to_owned(), Secret::new("u"))];
        let empty = ("KANIKO_EXAMPLE_COM_PASSWORD".to_owned(), Secret::new(""));
        assert!(
            !half.into_iter().chain([empty]).collect::<Variables>().covers("example.com"),
            "a user alone is no login"
        );
    }

    #[tokio::test]
    async fn the_variables_of_the_longest_name_win() {
        let pairs = [("EXAMPLE_COM", "far"), ("REGISTRY_EXAMPLE_COM", "near")];
        let variables = pairs.iter().flat_map(|(name, user)| {
            let pair = [("USER", *user), ("PASSWORD", "pw")];
            pair.map(|(half, value)| (format!("KANIKO_{name}_{half}"), Secret::new(value)))
        });
        let variables: Variables = variables.collect();
        let client = Client::new(Default::default()).unwrap();
        let lease = variables.login(&client, "registry.example.com").await.unwrap().unwrap();
        let expected = Login::Password { user: "near".into(), password: Secret::new("pw") };
        assert_eq!(lease.login, expected);
        assert!(!format!("{variables:?}").contains("pw"));
    }
}
