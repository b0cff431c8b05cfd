//! Base images.

use super::*;

const TEXT: &str =
    "FROM base\nWORKDIR /w\nRUN a\nCOPY f /x\nCOPY --from=base /y /z\nRUN --mount=from=base,target=/t b\n";

/// The keys with a base of these layers, whose config blob holds `config` and `more` beside it.
fn keys(config: &str, more: &str, layers: Vec<LayerRef>) -> Vec<Key> {
    let mut bench = Bench::new().file("f", "1");
    let blob = format!(r#"{{"architecture":"amd64","os":"linux","config":{config}{more}}}"#);
    let (manifest, config) = (Digest::of(&blob), ImageConfig::parse(blob.as_bytes()).unwrap());
    bench.known.images.insert(image_for("linux/amd64", "base"), BaseImage { manifest, config, layers });
    bench.keys(TEXT)
}

fn plain() -> Vec<Key> {
    keys("{}", "", vec![layer_of("one"), layer_of("two")])
}

#[test]
fn labels_times_and_annotations_of_a_base_count_for_nothing() {
    let layers = || vec![layer_of("one"), layer_of("two")];
    let cases = [
        (r#"{"Labels":{"build":"7"}}"#, ""),
        ("{}", r#","created":"2024-01-01T00:00:00Z""#),
        ("{}", r#","author":"me""#),
        ("{}", r#","history":[{"created_by":"x"}]"#),
        ("{}", r#","org.example.annotation":"x""#),
        (r#"{"Cmd":["x"],"Entrypoint":["y"],"ExposedPorts":{"80/tcp":{}},"StopSignal":"9"}"#, ""),
        (r#"{"Volumes":{"/v":{}},"Healthcheck":{"Test":["NONE"]}}"#, ""),
    ];
    for (config, more) in cases {
        assert_eq!(marks(&plain(), &keys(config, more, layers())), "=====", "{config}{more}");
    }
}

#[test]
fn a_base_that_was_compressed_anew_counts_for_nothing() {
    let repacked =
        |text| LayerRef { digest: Digest::of("other"), size: 5, compression: Compression::Zstd, ..layer_of(text) };
    assert_eq!(marks(&plain(), &keys("{}", "", vec![repacked("one"), repacked("two")])), "=====");
}

#[test]
fn a_base_whose_content_changed_under_its_tag_changes_all_that_stands_on_it() {
    let others: [&[&str]; 5] = [&["one", "three"], &["one"], &["two", "one"], &["one", "two", "three"], &[]];
    for other in others {
        let layers = other.iter().map(|name| layer_of(name)).collect();
        assert_eq!(marks(&plain(), &keys("{}", "", layers)), "xxxxx", "{other:?}");
    }
}

#[test]
fn what_a_base_says_of_commands_counts_for_them() {
    let layers = || vec![layer_of("one"), layer_of("two")];
    let cases = [
        (r#"{"Env":["A=1"]}"#, "=xxxx"),
        (r#"{"Env":["PATH=/bin"]}"#, "=xxxx"),
        (r#"{"User":"u"}"#, "xxxxx"),
        (r#"{"Shell":["/bin/bash","-c"]}"#, "=xxxx"),
        (r#"{"OnBuild":["LABEL l=1"]}"#, "====="),
        (r#"{"OnBuild":["ENV A=1"]}"#, "=xxxx"),
    ];
    for (config, expected) in cases {
        assert_eq!(marks(&plain(), &keys(config, "", layers())), expected, "{config}");
    }
    let bench = |directory| Bench::new().image("base", &format!(r#"{{"WorkingDir":"{directory}"}}"#));
    let keys = |directory| bench(directory).file("f", "").keys("FROM base\nRUN a\nCOPY f x\n");
    assert_eq!(marks(&keys("/one"), &keys("/two")), "xx");
}

#[test]
fn triggers_of_a_base_are_the_steps_that_they_become() {
    let bench = |triggers: &str| Bench::new().file("f", "1").image("base", &format!(r#"{{"OnBuild":[{triggers}]}}"#));
    let written = bench("").keys("FROM base\nCOPY f /x\nRUN a\nRUN b\n");
    assert_eq!(bench(r#""COPY f /x","RUN a""#).keys("FROM base\nRUN b\n"), written);
    let other = bench(r#""COPY f /x","RUN c""#).keys("FROM base\nRUN b\n");
    assert_eq!(marks(&written, &other), "=xx");
}

#[test]
fn one_image_by_two_names_is_one_base() {
    let keys = |name: &str| {
        let mut bench = Bench::new().image("base", "{}");
        let image = bench.known.images.values().next().unwrap().clone();
        bench.known.images.insert(image_for("linux/amd64", name), image);
        bench.keys(&format!("FROM {name}\nRUN a\nCOPY --from={name} /x /y\n"))
    };
    assert_eq!(keys("base"), keys("mirror.example/base:1"));
}
