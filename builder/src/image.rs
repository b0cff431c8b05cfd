//! Image configs and manifests, as values and as bytes.
//!
//! The config is ours: the OCI crate's type drops `Healthcheck`, `OnBuild`, `Shell` and every field it does not know,
//! and writes maps in random order. This one keeps all of them, and one writer gives the same bytes for the same value.

mod form;

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use yadokari_layers::Digest;
use yadokari_registry::Platform;

pub use form::{Form, Format};

/// What the `comment` of every history entry says: the Dockerfile dialect, as BuildKit writes it.
const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";

/// The config blob of an image.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// MAINTAINER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The processor, in Go's names.
    #[serde(default, deserialize_with = "null_is_default")]
    pub architecture: String,
    /// The processor's variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The operating system.
    #[serde(default, deserialize_with = "null_is_default")]
    pub os: String,
    /// What a container of the image starts with.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ContainerConfig,
    /// The layers.
    #[serde(default, deserialize_with = "null_is_default")]
    pub rootfs: RootFs,
    /// How the image came about.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// Whatever else the base said (`os.version`, `docker_version`, …).
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What a container of the image starts with.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// USER
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// EXPOSE
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Map<String, Value>>,
    /// ENV, as `NAME=value` in the order of first definition.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// ENTRYPOINT
    #[serde(default, skip_serializing_if = "is_empty")]
    pub entrypoint: Option<Vec<String>>,
    /// CMD
    #[serde(default, skip_serializing_if = "is_empty")]
    pub cmd: Option<Vec<String>>,
    /// HEALTHCHECK
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthcheckConfig>,
    /// Whether the command is one escaped string, which matters on Windows. BuildKit sets it with CMD.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// VOLUME
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Map<String, Value>>,
    /// WORKDIR
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// ONBUILD
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// LABEL
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// STOPSIGNAL
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// SHELL
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Whatever else the base said.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// HEALTHCHECK in a config. Times are in nanoseconds; zero means the runtime's default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthcheckConfig {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// After which a check has failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// After the start, while failures do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between two checks during the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// How many failures in a row make a container unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// The layers of an image, by the digests of their uncompressed tars.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", default, deserialize_with = "null_is_default")]
    pub kind: String,
    /// The lowest layer first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
}

/// One instruction's trace.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct History {
    /// When, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it made no layer.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
    /// Whatever else the base said.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl History {
    /// The trace of an instruction that made a layer, or none.
    pub fn of(created: &str, created_by: &str, has_layer: bool) -> Self {
        Self {
            created: Some(created.to_owned()),
            created_by: Some(created_by.to_owned()),
            comment: Some(HISTORY_COMMENT.to_owned()),
            empty_layer: !has_layer,
            ..Self::default()
        }
    }

    /// The trace of a merge of the layers that the instructions before it made, which are no layers of the image any more.
    /// No instruction asked for it.
    pub fn of_merged(created: &str, comment: &str, has_layer: bool) -> Self {
        let (created, comment) = (Some(created.to_owned()), Some(comment.to_owned()));
        Self { created, comment, empty_layer: !has_layer, ..Self::default() }
    }
}

impl ImageConfig {
    /// Reads a config blob, OCI's or Docker's.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The one form in which we write a config: fields in the order of the type, maps by key.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_canonical(self)
    }
}

/// A blob as a manifest names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlobRef {
    /// The media type.
    pub media_type: String,
    /// The digest.
    pub digest: Digest,
    /// The size in bytes.
    pub size: u64,
}

/// The bytes of the manifest of a config and its layers, the lowest first.
pub fn manifest_bytes(form: &Form, config: &BlobRef, layers: &[BlobRef]) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest<'a> {
        schema_version: u32,
        media_type: &'a str,
        config: &'a BlobRef,
        layers: &'a [BlobRef],
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        annotations: &'a BTreeMap<String, String>,
    }
    let (media_type, annotations) = (form.format.manifest(), &form.annotations);
    to_canonical(&Manifest { schema_version: 2, media_type, config, layers, annotations })
}

/// The bytes of an index of manifests, each with the platform that its image is for.
pub fn index_bytes(form: &Form, manifests: &[(BlobRef, Platform)]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Described<'a> {
        #[serde(flatten)]
        manifest: &'a BlobRef,
        platform: Said<'a>,
    }
    #[derive(Serialize)]
    struct Said<'a> {
        architecture: &'a str,
        os: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        variant: Option<&'a str>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index<'a> {
        schema_version: u32,
        media_type: &'a str,
        manifests: Vec<Described<'a>>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        annotations: &'a BTreeMap<String, String>,
    }
    let described = manifests.iter().map(|(manifest, platform)| {
        let Platform { os, architecture, variant } = platform;
        Described { manifest, platform: Said { architecture, os, variant: variant.as_deref() } }
    });
    let (media_type, annotations) = (form.format.index(), &form.index_annotations);
    to_canonical(&Index { schema_version: 2, media_type, manifests: described.collect(), annotations })
}

/// A time in whole seconds since the Unix epoch as RFC 3339 in UTC.
pub fn rfc3339(secs: i64) -> String {
    let days = secs.div_euclid(86_400);
    let of_day = secs.rem_euclid(86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// The seconds since the Unix epoch of a time in RFC 3339, without their fraction; `None` for any other text.
pub fn since_epoch(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
    };
    let separators = text.as_bytes().get(..19)?;
    let separators =
        [separators[4], separators[7], separators[10].to_ascii_uppercase(), separators[13], separators[16]];
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if separators != *b"--T::" || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = &text[19..];
    let zone = match rest.strip_prefix('.') {
        Some(fraction) => {
            let zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            if zone.len() == fraction.len() { return None } else { zone }
        }
        None => rest,
    };
    let at = text.len() - zone.len();
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let offset = number(at + 1..at + 3)? * 3600 + number(at + 4..at + 6)? * 60;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    Some(day_number(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

/// The inverse of [`civil`].
fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

/// The Gregorian date of a day counted from 1970-01-01, by eras of 400 years that begin on the first of March.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn to_canonical(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("values of strings, numbers and string-keyed maps always have a JSON form")
}

fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `CMD []` is no command: engines leave both out.
fn is_empty(words: &Option<Vec<String>>) -> bool {
    words.as_ref().is_none_or(Vec::is_empty)
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_base_says_is_kept_to_the_last_field() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":["A=b"],"OnBuild":["RUN x"],"Shell":["/bin/bash","-c"],"Healthcheck":{"Test":["CMD","x"],"Retries":3},"StopTimeout":5,"Hostname":"h"},"rootfs":{"type":"layers","diff_ids":[]},"docker_version":"28"}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        let before: Value = serde_json::from_str(text).unwrap();
        let after: Value = serde_json::from_slice(&config.to_bytes()).unwrap();
        assert_eq!(after, before);
    }

    #[test]
    fn null_means_absent() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":null,"Labels":null,"Volumes":null},"rootfs":{"type":"layers","diff_ids":null},"history":null}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config, ContainerConfig::default());
    }

    #[test]
    fn the_bytes_of_a_config_are_pinned() {
        let mut config = ImageConfig { architecture: "amd64".into(), os: "linux".into(), ..Default::default() };
        config.config.labels = BTreeMap::from([("b".into(), "2".into()), ("a".into(), "1".into())]);
        config.config.exposed_ports = BTreeMap::from([("80/tcp".into(), Map::new())]);
        config.extra.insert("zz".into(), 1.into());
        config.extra.insert("os.version".into(), "x".into());
        assert_eq!(
            String::from_utf8(config.to_bytes()).unwrap(),
            r#"{"architecture":"amd64","os":"linux","config":{"ExposedPorts":{"80/tcp":{}},"Labels":{"a":"1","b":"2"}},"rootfs":{"type":"","diff_ids":[]},"os.version":"x","zz":1}"#
        );
    }

    #[test]
    fn the_bytes_of_an_index_are_pinned() {
        const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
        const INDEX: &str = "application/vnd.oci.image.index.v1+json";
        let manifest = BlobRef { media_type: MANIFEST.into(), digest: Digest::of("x"), size: 1 };
        let platforms = ["linux/amd64", "linux/arm/v6"].map(|text| (manifest.clone(), text.parse().unwrap()));
        let line = |platform: &str| {
            let digest = Digest::of("x");
            format!(r#"{{"mediaType":"{MANIFEST}","digest":"{digest}","size":1,"platform":{{{platform}}}}}"#)
        };
        let lines = [
            line(r#""architecture":"amd64","os":"linux""#),
            line(r#""architecture":"arm","os":"linux","variant":"v6""#),
        ];
        let expected = format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, lines.join(","));
        assert_eq!(String::from_utf8(index_bytes(&Form::default(), &platforms)).unwrap(), expected);
    }

    #[test]
    fn the_bytes_of_manifests_are_pinned_in_either_format() {
        let blob = |media_type: &str| BlobRef { media_type: media_type.into(), digest: Digest::of("x"), size: 1 };
        let digest = Digest::of("x");
        let oci = Form {
            annotations: BTreeMap::from([("b".into(), "2".into()), ("a".into(), "1".into())]),
            ..Form::default()
        };
        let docker = Form { format: Format::Docker, ..Form::default() };
        let line = |media_type: &str| format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":1}}"#);
        for (form, manifest, config, layer, more) in [
            (
                &oci,
                "application/vnd.oci.image.manifest.v1+json",
                "application/vnd.oci.image.config.v1+json",
                "application/vnd.oci.image.layer.v1.tar+gzip",
                r#","annotations":{"a":"1","b":"2"}"#,
            ),
            (
                &docker,
                "application/vnd.docker.distribution.manifest.v2+json",
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                "",
            ),
        ] {
            let layers = [blob(form.format.layer(yadokari_layers::Compression::Gzip))];
            let bytes = manifest_bytes(form, &blob(form.format.config()), &layers);
            let expected = format!(
                r#"{{"schemaVersion":2,"mediaType":"{manifest}","config":{},"layers":[{}]{more}}}"#,
                line(config),
                line(layer)
            );
            assert_eq!(String::from_utf8(bytes).unwrap(), expected);
        }
        let index = index_bytes(&Form { index_annotations: oci.annotations, ..docker }, &[]);
        let expected = r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json","manifests":[],"annotations":{"a":"1","b":"2"}}"#;
        assert_eq!(String::from_utf8(index).unwrap(), expected);
    }

    #[test]
    fn an_empty_command_is_left_out() {
        let config = ContainerConfig { cmd: Some(vec![]), entrypoint: Some(vec![]), ..Default::default() };
        assert_eq!(to_canonical(&config), b"{}");
    }

    #[test]
    fn times_are_written_as_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_826_554), "2000-02-29T12:15:54Z");
        assert_eq!(rfc3339(-1), "1969-12-31T23:59:59Z");
        assert_eq!(rfc3339(1_700_000_000), "2023-11-14T22:13:20Z");
    }

    #[test]
    fn times_are_read_as_others_write_them() {
        for seconds in [0, 951_826_554, -1, 1_700_000_000, -62_135_596_800, 4_107_542_399] {
            assert_eq!(since_epoch(&rfc3339(seconds)), Some(seconds));
        }
        for text in [
            "2023-11-14T22:13:20.123456789Z",
            "2023-11-15T00:43:20+02:30",
            "2023-11-14T17:13:20.5-05:00",
            "2023-11-14t22:13:20z",
        ] {
            assert_eq!(since_epoch(text), Some(1_700_000_000), "{text}");
        }
        for text in [
            "",
            "yesterday",
            "2023-11-14",
            "2023-11-14T22:13:20",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20+0230",
            "2023-13-14T22:13:20Z",
            "2023-11-14T24:13:20Z",
            "2023-11-14 22:13:20Z",
            "+023-11-14T22:13:20Z",
            "2023-11-14T22:13:20Z ",
            "2023-11-14T22:13:2é",
        ] {
            assert_eq!(since_epoch(text), None, "{text}");
        }
    }
}
