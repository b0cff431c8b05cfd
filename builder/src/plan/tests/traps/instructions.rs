//! Instructions, their words and their bodies.

use super::*;

/// The key of the last step of these lines on an image.
fn last(lines: &str) -> Key {
    let bench = Bench::new().file("f", "1").file("g", "1").file("d/h", "2").image("base", "{}");
    *bench.keys(&format!("FROM base\n{lines}\n")).last().unwrap()
}

#[test]
fn instructions_cannot_be_read_as_one_another() {
    let lines = [
        "RUN a #-|1-ENV-RUN b",
        "RUN a #\nRUN b",
        "RUN a #\nENV A=\nRUN b",
        "RUN a\nRUN b",
        "RUN a RUN b",
        "RUN [\"a\", \"b\"]",
        "RUN [\"a b\"]",
        "RUN [\"a\", \"\", \"b\"]",
        "RUN [\"/bin/sh\", \"-c\", \"a\", \"b\"]",
        "ENV A=1 B=2\nRUN a",
        "ENV A=\"1 B=2\"\nRUN a",
        "ENV A=1B=2\nRUN a",
        "ENV A1=B=2\nRUN a",
        "USER a\nRUN a",
        "WORKDIR /a\nRUN a",
        "COPY f g /x/",
        "COPY f /x/\nCOPY g /x/",
        "COPY --chown=1 f /x/",
        "COPY --chmod=1 f /x/",
        "COPY <<f <<g /x/\n1\nf\n1\ng",
        "COPY <<f /x/\n1\n1\nf",
        "WORKDIR /x/",
        "USER /x\nWORKDIR /x/",
    ];
    let keys: BTreeSet<Key> = lines.iter().map(|lines| last(lines)).collect();
    assert_eq!(keys.len(), lines.len());
}

#[test]
fn variables_in_the_words_of_copy_add_and_workdir_count() {
    let given = |value: &str, line: &str| {
        let bench = Bench::new().file("one", "same").file("two", "same").build_arg("V", value);
        bench.keys(&format!("FROM scratch\nARG V\n{line}\n"))[0]
    };
    let lines = [
        "COPY $V /x/",
        "COPY one /$V",
        "COPY --from=scratch $V* /x/",
        "ADD ${V} /x/",
        "ADD one /x/$V",
        "WORKDIR /$V",
        "WORKDIR $V",
        "COPY --chown=$V one /x",
        "RUN --mount=target=/$V a",
    ];
    for line in lines {
        assert_ne!(given("one", line), given("two", line), "{line}");
        assert_eq!(given("one", line), given("one", line), "{line}");
        let with_env = Bench::new().file("one", "same").file("two", "same");
        let by_env = |value: &str| with_env.keys(&format!("FROM scratch\nENV V={value}\n{line}\n"))[0];
        assert_ne!(by_env("one"), by_env("two"), "{line}");
    }
    let mode = |value| given(value, "COPY --chmod=$V one /x");
    assert_ne!(mode("600"), mode("644"));
    // A variable that is not in the text of a copy is none of its business.
    assert_eq!(given("one", "COPY one /x"), given("two", "COPY one /x"));
}

#[test]
fn the_body_of_a_run_counts() {
    assert_ne!(last("RUN <<E\na\nE"), last("RUN <<E\nb\nE"));
    assert_ne!(last("RUN <<E\n#!/bin/x\na\nE"), last("RUN <<E\n#!/bin/x\nb\nE"), "a script");
    assert_ne!(last("RUN <<E\n#!/bin/x\na\nE"), last("RUN <<E\n#!/bin/y\na\nE"), "its interpreter");
    assert_ne!(last("RUN cat <<A <<B\n1\nA\n2\nB"), last("RUN cat <<A <<B\n2\nA\n1\nB"));
    assert_ne!(last("RUN python <<E\na\nE"), last("RUN cat <<E\na\nE"));
    assert_eq!(last("RUN <<E\na\nE"), last("RUN <<F\na\nF"), "the word that ends it is not in it");
}

#[test]
fn the_body_of_a_copied_file_and_its_variables_count() {
    for name in ["COPY", "ADD"] {
        assert_ne!(last(&format!("{name} <<E /x\na\nE")), last(&format!("{name} <<E /x\nb\nE")));
        let body = |value: &str, quote: &str| last(&format!("ENV V={value}\n{name} <<{quote}E{quote} /x\n$V\nE"));
        assert_ne!(body("1", ""), body("2", ""));
        assert_eq!(body("1", "'"), body("2", "'"), "nothing is replaced in it");
        assert_ne!(body("1", ""), body("1", "'"));
    }
    assert_ne!(last("COPY <<E <<F /x/\n1\nE\n2\nF"), last("COPY <<E <<F /x/\n2\nE\n1\nF"));
    assert_ne!(last("COPY <<E /x/\n1\nE"), last("COPY <<F /x/\n1\nF"), "its name is that of the file");
    assert_eq!(last("ENV V=1\nCOPY <<E /x\n$V\nE"), last("COPY <<E /x\n1\nE"), "what counts is what comes of it");
}

#[test]
fn the_order_of_sources_counts_wherever_they_come_from() {
    let url = "https://files.example/f";
    let path = std::path::PathBuf::from("/downloads/1");
    let file = crate::remote::RemoteFile { path, digest: Digest::of("2"), size: 1, mtime: 0 };
    let bench = Bench::new().file("f", "1").file("d/f", "1").fetched(Remote::Url(url.into()), Fetched::File(file));
    let key = |sources: &str| bench.keys(&format!("FROM scratch\nADD {sources} /x/\n"))[0];
    // Each is put in the place of the one before.
    assert_ne!(key(&format!("f {url}")), key(&format!("{url} f")));
    assert_ne!(key(&format!("f {url} d")), key(&format!("f d {url}")));
    assert_ne!(last("COPY f d /x/"), last("COPY d f /x/"));
}

#[test]
fn what_a_url_holds_counts_and_where_it_is_does_not() {
    let key = |url: &str, content: &str, mtime| {
        let path = std::path::PathBuf::from("/downloads/1");
        let file = crate::remote::RemoteFile { path, digest: Digest::of(content), size: 1, mtime };
        let bench = Bench::new().fetched(Remote::Url(url.into()), Fetched::File(file));
        bench.keys(&format!("FROM scratch\nADD {url} /x/\n"))[0]
    };
    let plain = key("https://one.example/f", "1", 0);
    assert_ne!(key("https://one.example/f", "2", 0), plain, "the same address, and another file");
    assert_eq!(key("https://user:word@two.example/v2/f?token=x", "1", 9), plain);
    assert_ne!(key("https://one.example/g", "1", 0), plain, "the name of the file");
}

#[test]
fn a_stage_is_the_same_by_its_number_its_name_and_in_capitals() {
    let bench = Bench::new().image("base", "{}");
    let keys = |name: &str| {
        bench.keys(&format!(
            "FROM base AS tools\nRUN a\nFROM base\nCOPY --from={name} /a /b\nRUN --mount=from={name},target=/t b\n"
        ))
    };
    let plain = keys("tools");
    for name in ["0", "TOOLS", "Tools"] {
        assert_eq!(marks(&plain, &keys(name)), "==", "{name}");
    }
    let below = |name: &str| bench.keys(&format!("FROM base AS tools\nRUN a\nFROM {name}\nRUN b\n"));
    assert_eq!(below("tools"), below("TOOLS"));
}

#[test]
fn an_argument_of_one_stage_is_none_of_its_siblings() {
    let text =
        "FROM base AS a\nARG V=1\nRUN a\nFROM base AS b\nRUN a\nFROM scratch\nCOPY --from=a /x /\nCOPY --from=b /y /\n";
    let plan = |value: &str| Bench::new().image("base", "{}").build_arg("V", value).plan(text);
    let keys = |plan: &Plan, stage: usize| plan.stages[stage].steps.iter().map(|step| step.key).collect::<Vec<_>>();
    let (one, two) = (plan("1"), plan("2"));
    assert_eq!([0, 1].map(|stage| marks(&keys(&one, stage), &keys(&two, stage))), ["x", "="]);
    assert_ne!(keys(&one, 0), keys(&one, 1), "a RUN after an ARG sees it");
    // Neither is an argument that no stage declares.
    let text = "FROM base\nRUN a\n";
    let undeclared = Bench::new().image("base", "{}").build_arg("V", "1").keys(text);
    assert_eq!(undeclared, Bench::new().image("base", "{}").keys(text));
}

#[test]
fn a_run_without_effect_has_a_key_that_is_stable_and_its_own() {
    let bench = Bench::new().image("base", "{}");
    let text = "FROM base\nRUN true\nRUN true\nRUN a\n";
    let keys = bench.keys(text);
    assert_eq!(keys, bench.keys(text));
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 3);
    assert_ne!(bench.keys("FROM base\nRUN a\n")[0], keys[2], "what it stands on has another key");
    // By content it stands on the same: the empty step leaves the state as it is.
    let (plan, alone) = (bench.plan(text), bench.plan("FROM base\nRUN a\n"));
    let below = plan.target().base_key;
    assert_eq!(plan.target().steps[2].content_key(&below, &[]), alone.target().steps[0].content_key(&below, &[]));
}

#[test]
fn proxies_secrets_and_caches_count_for_nothing() {
    let proxied = Bench::new().image("base", "{}").build_arg("https_proxy", "http://user:word@proxy");
    let text = "FROM base\nRUN a\nCOPY <<E /x\n1\nE\n";
    assert_eq!(proxied.keys(text), Bench::new().image("base", "{}").keys(text));
    let same = [
        ("type=secret,id=s", "type=secret,id=s,required"),
        ("type=secret,id=s,env=A", "type=secret,id=s,env=A,required"),
        ("type=ssh", "type=ssh,required"),
        ("type=cache,target=/c", "type=cache,target=/c,sharing=locked"),
        ("type=cache,target=/c", "type=cache,target=/c,id=/c"),
    ];
    for (one, other) in same {
        assert_eq!(last(&format!("RUN --mount={one} a")), last(&format!("RUN --mount={other} a")), "{one} and {other}");
    }
    let different =
        ["type=secret,id=s", "type=secret,id=t", "type=secret,id=s,target=/s", "type=ssh", "type=cache,target=/c"];
    let keys: BTreeSet<Key> = different.iter().map(|mount| last(&format!("RUN --mount={mount} a"))).collect();
    assert_eq!(keys.len(), different.len(), "what the command may see does count");
}

#[test]
fn what_only_edits_the_config_counts_for_no_later_step() {
    let edits = [
        "LABEL l=1",
        "EXPOSE 80",
        "CMD x",
        "ENTRYPOINT [\"x\"]",
        "VOLUME /v",
        "STOPSIGNAL 9",
        "HEALTHCHECK CMD x",
        "ONBUILD RUN y",
        "MAINTAINER me",
    ];
    let steps = ["RUN a", "COPY f /x", "WORKDIR /w"];
    for edit in edits {
        for step in steps {
            assert_eq!(last(step), last(&format!("{edit}\n{step}")), "{edit} before {step}");
        }
    }
}

#[test]
fn a_variable_counts_for_commands_and_not_for_copies() {
    let cases = [
        ("ENV A=1\nRUN a", "ENV A=2\nRUN a", "x"),
        ("ENV A=1\nCOPY f /x", "ENV A=2\nCOPY f /x", "="),
        ("ENV A=1\nWORKDIR /w", "ENV A=2\nWORKDIR /w", "="),
        ("ENV A=1\nADD f /x", "ENV B=2\nADD f /x", "="),
        ("ENV A=1\nCOPY f /x\nRUN a", "ENV A=2\nCOPY f /x\nRUN a", "=x"),
        ("RUN a\nENV A=1", "RUN a\nENV A=2", "="),
    ];
    for (before, after, expected) in cases {
        let marks = changed(&format!("FROM base\n{before}\n"), &format!("FROM base\n{after}\n"));
        assert_eq!(marks, expected, "{before:?} to {after:?}");
    }
}
