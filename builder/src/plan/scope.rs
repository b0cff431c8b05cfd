//! Variables: which are visible where, and which value wins.

use std::borrow::Cow;

use yadokari_registry::Platform;

use crate::dockerfile::Variables;

/// Variables in the order of their first definition, as an image's `Env` keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Env(Vec<(String, String)>);

impl Env {
    /// The variables of an image's `Env`. An element without `=` is a name with an empty value.
    pub(super) fn of_image(env: &[String]) -> Self {
        let mut this = Self::default();
        for variable in env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            this.set(name, value);
        }
        this
    }

    /// Gives `name` a value, in its old place where it has one.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    /// The value of `name`.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// All variables in order.
    pub(super) fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// The form of an image's `Env`.
    pub(super) fn to_image(&self) -> Vec<String> {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

impl Variables for Env {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.value(name).map(Cow::Borrowed)
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// Arguments that RUN steps see without an ARG, and that neither history nor keys mention.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// What `--build-arg` gave, and the values that exist before the first FROM.
#[derive(Debug)]
pub(super) struct Globals<'a> {
    build_args: &'a [(String, String)],
    values: Env,
}

impl<'a> Globals<'a> {
    /// The automatic arguments of a build for the platform `wanted` on a machine of the platform `host`, which
    /// `--build-arg` may override.
    pub(super) fn new(
        build_args: &'a [(String, String)],
        wanted: &Platform,
        host: &Platform,
        target: Option<&str>,
        epoch: Option<i64>,
    ) -> Self {
        let mut this = Self { build_args, values: Env::default() };
        for (side, platform) in [("TARGET", wanted), ("BUILD", host)] {
            this.define(&format!("{side}PLATFORM"), Some(platform.to_string()));
            this.define(&format!("{side}OS"), Some(platform.os.clone()));
            this.define(&format!("{side}ARCH"), Some(platform.architecture.clone()));
            this.define(&format!("{side}VARIANT"), Some(platform.variant.clone().unwrap_or_default()));
            this.define(&format!("{side}OSVERSION"), Some(String::new()));
        }
        this.define("TARGETSTAGE", Some(target.unwrap_or("default").to_owned()));
        this.define("SOURCE_DATE_EPOCH", epoch.map(|epoch| epoch.to_string()));
        this
    }

    /// An ARG before the first FROM: its value is what `--build-arg` says, else `default`.
    pub(super) fn define(&mut self, name: &str, default: Option<String>) {
        if let Some(value) = self.build_arg(name).map(str::to_owned).or(default) {
            self.values.set(name, &value);
        }
    }

    /// Whether `--build-arg` says what `name` is. Its default is then not even expanded.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.build_arg(name).is_some()
    }

    /// The value of an ARG in a stage: what `--build-arg` says, else its default, else the global value.
    pub(super) fn argument<E>(
        &self,
        name: &str,
        default: impl FnOnce() -> Result<Option<String>, E>,
    ) -> Result<Option<String>, E> {
        if let Some(given) = self.build_arg(name) {
            return Ok(Some(given.to_owned()));
        }
        Ok(default()?.or_else(|| self.values.value(name).map(str::to_owned)))
    }

    /// The values that FROM lines see.
    pub(super) fn values(&self) -> &Env {
        &self.values
    }

    /// The proxy settings given with `--build-arg`, each in capitals and in small letters, whichever was given.
    pub(super) fn proxies(&self) -> Vec<(String, String)> {
        let given = |name: &&str| {
            let mut build_args = self.build_args.iter().rev();
            let value = build_args.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)?;
            Some(((*name).to_owned(), value.clone()))
        };
        PROXIES.iter().filter_map(given).collect()
    }

    /// What `--build-arg` says.
    pub(super) fn build_arg(&self, name: &str) -> Option<&'a str> {
        self.build_args.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// BuildKit's own arguments. `BUILDKIT_SYNTAX` names a front-end image, as `# syntax=` does, and has no effect either.
const BUILDKIT: [&str; 5] = [
    "BUILDKIT_SYNTAX",
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_DOCKERFILE_CHECK",
    "BUILDKIT_MULTI_PLATFORM",
];

/// Those of BuildKit's arguments that ask for what is not carried out.
const WITHOUT_EFFECT: [&str; 4] =
    ["BUILDKIT_INLINE_CACHE", "BUILDKIT_SANDBOX_HOSTNAME", "BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Whether a build argument asks for something that is not carried out.
pub(super) fn is_without_effect(name: &str, value: &str) -> bool {
    WITHOUT_EFFECT.contains(&name) && !["", "0", "f", "false"].contains(&value.to_ascii_lowercase().as_str())
}

/// Whether an ARG is a variable from there on. Those for the scanner of attestations are not.
pub(super) fn enters_environment(name: &str) -> bool {
    !name.starts_with("BUILDKIT_SBOM_SCAN_")
}

/// Whether an argument is one of those that are known without an ARG.
pub(super) fn is_predefined(name: &str) -> bool {
    PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
        || BUILDKIT.contains(&name)
        || WITHOUT_EFFECT.contains(&name)
        || name == "SOURCE_DATE_EPOCH"
        || name == "TARGETSTAGE"
        || ["TARGET", "BUILD"].iter().any(|side| {
            let rest = name.strip_prefix(side);
            rest.is_some_and(|rest| ["PLATFORM", "OS", "ARCH", "VARIANT", "OSVERSION"].contains(&rest))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_keeps_its_first_place() {
        let mut env = Env::of_image(&["A=1".into(), "B".into()]);
        env.set("C", "3");
        env.set("A", "9");
        assert_eq!(env.to_image(), ["A=9", "B=", "C=3"]);
    }

    #[test]
    fn build_args_override_defaults_and_the_last_one_wins() {
        let given = [("V".to_owned(), "1".to_owned()), ("V".to_owned(), "2".to_owned())];
        let globals = Globals::new(&given, &Platform::host(), &Platform::host(), None, None);
        let argument =
            |name, default: Option<&str>| globals.argument(name, || Ok::<_, ()>(default.map(str::to_owned))).unwrap();
        assert_eq!(argument("V", Some("default")).as_deref(), Some("2"));
        assert_eq!(argument("W", Some("default")).as_deref(), Some("default"));
        assert_eq!(argument("TARGETSTAGE", None).as_deref(), Some("default"));
        assert_eq!(argument("X", None), None);
    }
}
