//! The config after each instruction that only edits it.

use serde_json::{Value, json};

use super::*;

/// The config object of an image `FROM scratch` with `lines`, without what scratch brings.
fn config(lines: &str) -> Value {
    let bytes = planned(&format!("FROM scratch\n{lines}\n")).target().config.to_bytes();
    let mut blob: Value = serde_json::from_slice(&bytes).unwrap();
    let config = blob["config"].as_object_mut().unwrap();
    config.remove("WorkingDir").filter(|workdir| workdir != "/").into_iter().for_each(|workdir| {
        config.insert("WorkingDir".into(), workdir);
    });
    if let Some(Value::Array(env)) = config.get_mut("Env") {
        assert_eq!(env.remove(0), "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        if env.is_empty() {
            config.remove("Env");
        }
    }
    Value::Object(config.clone())
}

#[test]
fn each_instruction_edits_its_field() {
    let cases = [
        ("ENV A=1 B=\"two words\"", json!({"Env": ["A=1", "B=two words"]})),
        ("ENV A=1\nENV B=2\nENV A=$B$A", json!({"Env": ["A=21", "B=2"]})),
        ("ENV A=1\nENV A=2 C=$A", json!({"Env": ["A=2", "C=1"]})),
        ("ENV legacy a  b", json!({"Env": ["legacy=a  b"]})),
        ("LABEL a=1 \"b c\"=2\nLABEL a=3", json!({"Labels": {"a": "3", "b c": "2"}})),
        ("USER app:apps", json!({"User": "app:apps"})),
        ("WORKDIR /a\nWORKDIR b", json!({"WorkingDir": "/a/b"})),
        ("WORKDIR /a/", json!({"WorkingDir": "/a/"})),
        ("WORKDIR /a/\nWORKDIR ../b/", json!({"WorkingDir": "/b"})),
        ("WORKDIR /a\nWORKDIR $NONE", json!({"WorkingDir": "/a"})),
        ("EXPOSE 80 53/udp\nEXPOSE 80/tcp", json!({"ExposedPorts": {"53/udp": {}, "80/tcp": {}}})),
        ("ARG P='1 2'\nEXPOSE $P", json!({"ExposedPorts": {"1/tcp": {}, "2/tcp": {}}})),
        ("VOLUME /a [\"b\"]", json!({"Volumes": {"/a": {}, "[b]": {}}})),
        ("VOLUME [\"/a\", \"/b c\"]", json!({"Volumes": {"/a": {}, "/b c": {}}})),
        ("STOPSIGNAL SIGQUIT", json!({"StopSignal": "SIGQUIT"})),
        ("CMD [\"a\", \"b\"]", json!({"Cmd": ["a", "b"], "ArgsEscaped": true})),
        ("CMD a $b", json!({"Cmd": ["/bin/sh", "-c", "a $b"], "ArgsEscaped": true})),
        ("CMD []", json!({"ArgsEscaped": true})),
        ("CMD [\"a\"]\nCMD [\"b\"]", json!({"Cmd": ["b"], "ArgsEscaped": true})),
        ("ENTRYPOINT [\"a\"]\nENTRYPOINT [\"b\"]", json!({"Entrypoint": ["b"]})),
        ("ENTRYPOINT [\"a\"]\nENTRYPOINT []", json!({})),
        ("USER a\nUSER $NONE", json!({})),
        ("EXPOSE 127.0.0.1:8080:80/TCP", json!({"ExposedPorts": {"80/tcp": {}}})),
        ("HEALTHCHECK CMD a\nHEALTHCHECK NONE", json!({"Healthcheck": {"Test": ["NONE"]}})),
        ("ENTRYPOINT [\"a\"]", json!({"Entrypoint": ["a"]})),
        ("ENTRYPOINT []", json!({})),
        (
            "SHELL [\"/bin/bash\", \"-c\"]\nENTRYPOINT a",
            json!({"Shell": ["/bin/bash", "-c"], "Entrypoint": ["/bin/bash", "-c", "a"]}),
        ),
        ("ENTRYPOINT a\nSHELL [\"s\"]", json!({"Shell": ["s"], "Entrypoint": ["/bin/sh", "-c", "a"]})),
        ("HEALTHCHECK NONE", json!({"Healthcheck": {"Test": ["NONE"]}})),
        (
            "HEALTHCHECK --interval=1s --retries=2 CMD x y",
            json!({"Healthcheck": {"Test": ["CMD-SHELL", "x y"], "Interval": 1_000_000_000, "Retries": 2}}),
        ),
        ("HEALTHCHECK --retries=9 CMD a\nHEALTHCHECK CMD [\"b\"]", json!({"Healthcheck": {"Test": ["CMD", "b"]}})),
        ("ONBUILD RUN  a\nONBUILD ENV X=$Y", json!({"OnBuild": ["RUN  a", "ENV X=$Y"]})),
    ];
    for (lines, expected) in cases {
        assert_eq!(config(lines), expected, "{lines}");
    }
}

#[test]
fn the_maintainer_is_the_author() {
    assert_eq!(planned("FROM scratch\nMAINTAINER a b\n").target().config.author.as_deref(), Some("a b"));
}

#[test]
fn an_entrypoint_takes_the_inherited_command_away_but_not_the_stages_own() {
    let bench = Bench::new().image("base", r#"{"Cmd":["base"],"Entrypoint":["old"]}"#);
    let cmd = |text| bench.plan(text).config().cmd.clone();
    assert_eq!(cmd("FROM base\n"), Some(vec!["base".into()]));
    assert_eq!(cmd("FROM base\nENTRYPOINT [\"e\"]\n"), None);
    assert_eq!(cmd("FROM base\nENTRYPOINT []\n"), None);
    assert_eq!(cmd("FROM base\nCMD [\"c\"]\nENTRYPOINT [\"e\"]\n"), Some(vec!["c".into()]));
    assert_eq!(cmd("FROM base AS a\nCMD [\"c\"]\nFROM a\nENTRYPOINT [\"e\"]\n"), None);
}

#[test]
fn a_base_keeps_its_config_and_gets_a_path_where_it_has_none() {
    let bench = Bench::new()
        .image("bare", r#"{"Env":["A=1"],"User":"u","Labels":{"l":"1"}}"#)
        .image("full", r#"{"Env":["PATH=/mine","A=1"],"WorkingDir":"/w"}"#);
    let plan = bench.plan("FROM bare\n");
    assert_eq!(plan.config().env, ["A=1", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    assert_eq!((plan.config().user.as_str(), plan.config().working_dir.as_str()), ("u", ""));
    let plan = bench.plan("FROM full\n");
    assert_eq!(plan.config().env, ["PATH=/mine", "A=1"]);
    assert_eq!(plan.config().working_dir, "/w");
}

#[test]
fn labels_of_the_command_line_win() {
    let mut bench = Bench::new();
    bench.options.labels = vec![("a".into(), "cli".into())];
    assert_eq!(bench.plan("FROM scratch\nLABEL a=file b=file\n").config().labels["a"], "cli");
}

#[test]
fn values_that_make_no_sense_are_errors_at_their_place() {
    let cases = [
        ("STOPSIGNAL NOPE", "'NOPE' is not a signal"),
        ("EXPOSE 70000", "is not a port"),
        ("VOLUME $NONE", "VOLUME with an empty path"),
        ("ENV ${NONE}=1", "the name of a variable is empty"),
    ];
    for (line, message) in cases {
        let error = Bench::new().error(&format!("FROM scratch\n{line}\n"));
        assert!(error.contains(message) && error.contains("Dockerfile:2:"), "{error}");
    }
}

#[test]
fn an_empty_workdir_is_warned_of() {
    let plan = planned("FROM scratch\nWORKDIR /a\nARG NONE\nWORKDIR $NONE\n");
    let warnings: Vec<&str> = plan.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(warnings, ["WORKDIR is empty once its variables are replaced and stays '/a'"]);
}

#[test]
fn a_volume_makes_nothing_and_hides_nothing() {
    let plan = planned("FROM scratch\nVOLUME /v\nRUN x\n");
    assert_eq!(plan.target().steps.len(), 1, "no directory is made");
    let plain = planned("FROM scratch\nRUN x\n");
    assert_eq!(plan.runs(), plain.runs(), "what is written there later is a change like any other");
    assert_eq!(plan.target().steps[0].key, plain.target().steps[0].key);
}

#[test]
fn a_front_end_image_is_named_and_never_asked_for() {
    let text = "# syntax=registry.invalid/frontend:1\nFROM scratch\nLABEL a=b\n";
    let bench = Bench::new().build_arg("BUILDKIT_SYNTAX", "registry.invalid/other:1");
    assert!(bench.needs(text).is_empty());
    let plan = bench.plan(text);
    assert_eq!((plan.lines(), plan.warnings.len()), (vec!["LABEL a=b"], 0));
}
