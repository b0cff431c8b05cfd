use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;

fn digest(text: &str) -> Digest {
    Digest::of(text)
}

fn rule(selector: &str, updates: &str) -> String {
    format!(r#"{{"action":"CONVERT","selector":{{"identifier":"{selector}"}},"updates":{{"identifier":"{updates}"}}}}"#)
}

fn lock(rules: &[String]) -> Result<Lock, String> {
    Lock::new(Path::new("base.lock"), Some(&format!(r#"{{"rules":[{}]}}"#, rules.join(","))), false)
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

#[test]
fn a_source_policy_of_buildkits_is_read() {
    let pinned = digest("alpine");
    let text = format!(
        r#"{{"version": 1, "rules": [
            {},
            {{"action": "CONVERT", "selector": {{"identifier": "docker-image://h:5000/a:1", "match_type": "EXACT", "constraints": []}},
              "updates": {{"identifier": "docker-image://h:5000/a@{pinned}", "attrs": {{}}}}}},
            {{"action": "CONVERT", "selector": {{"identifier": "docker-image://h:5000/b:1", "matchType": "WILDCARD"}},
              "updates": {{"identifier": "docker-image://h:5000/b:1@{pinned}"}}}}
        ]}}"#,
        rule(
            "docker-image://docker.io/library/alpine:3.20",
            &format!("docker-image://docker.io/library/alpine:3.20@{pinned}")
        ),
    );
    let lock = Lock::new(Path::new("base.lock"), Some(&text), true).unwrap();
    for image in ["alpine:3.20", "docker.io/library/alpine:3.20", "h:5000/a:1", "h:5000/b:1"] {
        assert_eq!(lock.pinned(&name(image)), Some(pinned), "{image}");
        assert!(lock.admits(&name(image)), "{image}");
    }
    assert_eq!(lock.pinned(&name("alpine")), None);
    assert!(!lock.admits(&name("alpine:3.21")) && lock.admits(&name(&format!("alpine@{pinned}"))));
    assert!(Lock::new(Path::new("x"), Some("{}"), false).unwrap().admits(&name("alpine")));
}

#[test]
fn rules_that_are_not_carried_out_are_named() {
    let pinned = format!("docker-image://docker.io/library/a:1@{}", digest("a"));
    let with = |more: &str| {
        let selector = r#""identifier": "docker-image://docker.io/library/a:1""#;
        format!(r#"{{"action": "CONVERT", "selector": {{{selector}{more}}}, "updates": {{"identifier": "{pinned}"}}}}"#)
    };
    let a = "docker-image://docker.io/library/a:1";
    let table = [
        (r#"{"action": "DENY", "selector": {"identifier": "*"}}"#.to_owned(), "the action DENY is not carried out"),
        (r#"{"selector": {"identifier": "x"}}"#.to_owned(), "it has no action"),
        (with(r#", "match_type": "REGEX""#), "selectors of the type REGEX"),
        (with(r#", "constraints": [{"key": "k"}]"#), "constraints and attributes"),
        (with(r#", "other": 1"#), "unknown field `other`"),
        (rule("docker-image://docker.io/library/*", &pinned), "wildcards are not carried out"),
        (rule("docker-image://a:1", &pinned), "write docker-image://docker.io/library/a:1"),
        (rule("docker-image://docker.io/library/a", &pinned), "write docker-image://docker.io/library/a:latest"),
        (rule(&pinned, &pinned), "has a digest already"),
        (rule(a, a), "has no digest"),
        (
            rule(a, &pinned.replace("library/a", "library/b")),
            "it takes another image, docker-image://docker.io/library/b",
        ),
        (rule(a, &pinned.replace("a:1", "a:2")), "it takes another image"),
        (rule("https://h/f", &pinned), "only docker-image:// is carried out"),
        (rule("docker-image://A B", &pinned), "is not an image reference"),
        (
            format!(
                r#"{{"action": "CONVERT", "selector": {{"identifier": "{a}"}}, "updates": {{"identifier": "{pinned}", "attrs": {{"a": "b"}}}}}}"#
            ),
            "constraints and attributes",
        ),
    ];
    let good = rule("docker-image://h.x/x:1", &format!("docker-image://h.x/x:1@{}", digest("x")));
    for (bad, says) in table {
        let error = lock(&[good.clone(), bad.clone()]).unwrap_err();
        assert!(error.starts_with("rule 2") && error.contains(says), "{bad}: {error}");
    }
    let named = lock(&[rule("https://h/f", &pinned)]).unwrap_err();
    assert!(named.starts_with("rule 1 ('https://h/f'): "), "{named}");
    let error =
        lock(&[rule(a, &pinned), rule(a, &pinned.replace(&digest("a").hex(), &digest("b").hex()))]).unwrap_err();
    assert!(error.contains("another digest"), "{error}");
    for (text, says) in [("[]", "no source policy"), (r#"{"rules":[],"x":1}"#, "x"), (r#"{"version":2}"#, "version 2")]
    {
        let error = Lock::new(Path::new("x"), Some(text), false).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn what_was_found_is_added_sorted_and_always_in_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("base.lock");
    let lock = Lock::new(&path, None, false).unwrap();
    assert!(!lock.write().unwrap() && !path.exists());
    // The first answer counts.
    assert_eq!(lock.settle(&name("quay.io/z/z:1"), digest("z")), digest("z"));
    assert_eq!(lock.settle(&name("alpine:3.20"), digest("a")), digest("a"));
    assert_eq!(lock.settle(&name("alpine:3.20"), digest("other")), digest("a"));
    assert!(lock.write().unwrap());
    let text = fs::read_to_string(&path).unwrap();
    let expected = format!(
        r#"{{
  "rules": [
    {{
      "action": "CONVERT",
      "selector": {{
        "identifier": "docker-image://docker.io/library/alpine:3.20"
      }},
      "updates": {{
        "identifier": "docker-image://docker.io/library/alpine:3.20@{}"
      }}
    }},
    {{
      "action": "CONVERT",
      "selector": {{
        "identifier": "docker-image://quay.io/z/z:1"
      }},
      "updates": {{
        "identifier": "docker-image://quay.io/z/z:1@{}"
      }}
    }}
  ]
}}
"#,
        digest("a"),
        digest("z")
    );
    assert_eq!(text, expected);

    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(&path).unwrap();
    let again = Lock::new(&path, Some(&text), true).unwrap();
    assert_eq!(again.pinned(&name("alpine:3.20")), Some(digest("a")));
    assert!(!again.write().unwrap());
    let after = fs::metadata(&path).unwrap();
    assert_eq!((before.ino(), before.mtime_nsec()), (after.ino(), after.mtime_nsec()));

    again.settle(&name("debian:12"), digest("d"));
    assert!(again.write().unwrap());
    let text = fs::read_to_string(&path).unwrap();
    let places = ["alpine:3.20@", "debian:12@", "quay.io/z/z:1@"].map(|name| text.find(name).unwrap());
    assert!(places.is_sorted(), "{text}");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}
