//! RUN with flags, and the mounts that they become.

use super::*;
use crate::dockerfile::MountSharing;

fn bench() -> Bench {
    Bench::new().file("f", "1").file("d/g", "2").image("base", "{}").image("tools", "{}")
}

/// The only RUN of `FROM base` and these lines.
fn run_of(lines: &str) -> Run {
    let plan = bench().plan(&format!("FROM base\n{lines}\n"));
    let runs = plan.commands().map(|(_, run)| run.clone()).collect::<Vec<_>>();
    runs.into_iter().next_back().expect("there is a RUN")
}

/// The targets of its mounts.
fn targets(lines: &str) -> Vec<String> {
    run_of(lines).mounts.into_iter().map(|mount| mount.target).collect()
}

#[test]
fn targets_are_absolute_and_below_the_workdir() {
    let cases = [
        ("RUN --mount=target=/t x", "/t"),
        ("RUN --mount=target=t x", "/t"),
        ("WORKDIR /w\nRUN --mount=target=t x", "/w/t"),
        ("WORKDIR /w\nRUN --mount=target=../t/./u/ x", "/t/u"),
        ("WORKDIR /w\nRUN --mount=target=. x", "/w"),
        ("WORKDIR /w\nRUN --mount=type=tmpfs x", "/w"),
        ("ENV D=/d\nRUN --mount=target=$D/e x", "/d/e"),
        ("ARG D=/d\nRUN --mount=target=${D}/e x", "/d/e"),
        ("RUN --mount=target=/../../t x", "/t"),
        ("WORKDIR /w\nRUN --mount=type=secret,target=s x", "/w/s"),
        ("RUN --mount=type=secret,id=a/b x", "/run/secrets/b"),
        ("RUN --mount=type=ssh x", "/run/buildkit/ssh_agent.0"),
    ];
    for (lines, target) in cases {
        assert_eq!(targets(lines), [target], "{lines}");
    }
}

#[test]
fn the_root_is_no_target() {
    let cases = [
        ("RUN --mount=target=/ x", "a mount's target cannot be '/'", "2:20"),
        ("RUN --mount=type=cache,target=/../. x", "a mount's target cannot be '/'", "2:31"),
        ("RUN --mount=type=tmpfs x", "a tmpfs mount needs a target", "2:13"),
        ("RUN --mount=from=tools x", "a bind mount needs a target", "2:13"),
        ("WORKDIR /w\nRUN --mount=type=secret,id=x,target=.. x", "a mount's target cannot be '/'", "3:37"),
        ("RUN --mount=type=ssh,target=/ x", "a mount's target cannot be '/'", "2:29"),
    ];
    for (lines, message, place) in cases {
        let error = bench().error(&format!("FROM base\n{lines}\n"));
        assert!(error.contains(message) && error.contains(&format!("Dockerfile:{place}\n")), "{error}");
    }
}

#[test]
fn a_mount_that_lies_in_another_comes_after_it() {
    let lines = "RUN --mount=target=/a/b/c --mount=type=tmpfs,target=/a --mount=type=cache,target=/a/b x";
    assert_eq!(targets(lines), ["/a", "/a/b", "/a/b/c"]);
}

#[test]
fn of_two_mounts_with_one_target_the_later_holds() {
    let plan = bench().plan("FROM base\nRUN --mount=type=cache,target=/a --mount=type=tmpfs,target=/a/ x\n");
    let run = plan.commands().next().unwrap().1;
    assert!(matches!(run.mounts[..], [Mount { kind: MountKind::Tmpfs { .. }, .. }]), "{run:?}");
    let messages: Vec<&str> = plan.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(messages, ["two mounts have the target '/a'"]);
}

#[test]
fn bind_mounts_come_from_the_context_a_stage_or_an_image() {
    let text = "FROM base AS a\nFROM base\nRUN --mount=target=/1 --mount=src=d,from=a,target=/2,rw --mount=from=0,target=/3 \
                --mount=from=tools,target=/4 --mount=from=scratch,target=/5 x\n";
    let plan = bench().plan(text);
    let run = plan.commands().next().unwrap().1;
    let sources = run.mounts.iter().map(|mount| match &mount.kind {
        MountKind::Bind { source, read_only } => (source.from.clone(), source.path.as_str(), *read_only),
        kind => panic!("{kind:?}"),
    });
    let sources: Vec<_> = sources.collect();
    let expected = [
        (Some(Origin::Context), "/", true),
        (Some(Origin::Stage(0)), "d", false),
        (Some(Origin::Stage(0)), "/", true),
        (Some(Origin::Image(image_for("linux/amd64", "tools"))), "/", true),
        (None, "/", true),
    ];
    assert_eq!(sources, expected);
}

#[test]
fn what_is_mounted_must_be_in_the_context() {
    let bench = bench().file(".dockerignore", "f\n");
    let error = bench.error("FROM base\nRUN --mount=target=/t,source=none x\n");
    assert!(error.contains("'none' is not in the build context") && error.contains("Dockerfile:2:30"), "{error}");
    let error = bench.error("FROM base\nRUN --mount=target=/t,source=/f x\n");
    assert!(error.contains("/.dockerignore leaves it out"), "{error}");
    // A pattern is a name like any other.
    assert!(bench.error("FROM base\nRUN --mount=target=/t,source=d* x\n").contains("'d*' is not in the build context"));
    bench.plan("FROM base\nRUN --mount=target=/t,source=../../d x\n");
}

#[test]
fn what_is_mounted_from_is_needed() {
    let needs = |text: &str| Bench::new().needs(text);
    assert_eq!(needs("FROM scratch\nRUN --mount=from=image:1,target=/t x\n"), ["image:1"]);
    assert_eq!(needs("FROM one\nRUN --mount=type=cache,from=two,target=/t x\n"), ["one", "two"]);
    // A stage that only a mount names is built, and one that nobody names is not.
    let text = "FROM one AS a\nFROM two AS b\nFROM scratch\nRUN --mount=from=a,target=/t x\n";
    assert_eq!(needs(text), ["one"]);
    let plan = bench().plan("FROM base AS a\nRUN y\nFROM none AS b\nFROM scratch\nRUN --mount=from=a,target=/t x\n");
    assert_eq!(plan.stages.len(), 2);
    // What is wrong with the mounts of a stage that nobody needs is nobody's business.
    bench().plan("FROM base AS a\nRUN --mount=type=none,target=/t --security=insecure y\nFROM base\nRUN x\n");
    assert!(needs("FROM scratch\nRUN --mount=from=scratch,target=/t x\n").is_empty());
}

#[test]
fn only_earlier_stages_are_mounted_from() {
    let cases = [
        ("FROM base AS a\nRUN --mount=from=a,target=/t x\n", "from=a is the stage itself", "2:18"),
        ("FROM base AS a\nRUN --mount=target=/t,from=B x\nFROM a AS b\n", "from=B is a later stage", "2:28"),
        ("FROM base\nRUN --mount=from=7,target=/t x\n", "from=7: the Dockerfile has 1 stages, counted from 0", "2:18"),
    ];
    for (text, message, place) in cases {
        let mut bench = bench();
        bench.options.target = text.contains("AS b").then(|| "a".to_owned());
        let error = bench.error(text);
        assert!(error.contains(message) && error.contains(&format!("Dockerfile:{place}\n")), "{error}");
        assert!(error.contains("only earlier stages can be mounted from"), "{error}");
    }
}

#[test]
fn a_trigger_mounts_like_any_run() {
    let text = "FROM base AS one\nRUN y\nFROM base AS two\nONBUILD RUN --mount=from=one,target=/t x\nFROM two\n";
    let plan = bench().plan(text);
    assert_eq!(plan.target().runs()[0].mounts[0].target, "/t");
    let error = bench().error("FROM base AS two\nONBUILD RUN --mount=type=bind,target=/t,size=1 x\nFROM two\n");
    assert!(error.starts_with("ONBUILD trigger") && error.contains("a bind mount has no 'size'"), "{error}");
    let config = r#"{"OnBuild":["RUN --mount=from=image:2,target=/t x"]}"#;
    assert_eq!(Bench::new().image("base", config).needs("FROM base\n"), ["image:2"]);
}

/// The cache of the only mount.
fn cache(lines: &str) -> (Key, MountSharing, Access, bool) {
    match run_of(lines).mounts.remove(0).kind {
        MountKind::Cache { name, sharing, access, read_only, .. } => (name, sharing, access, read_only),
        kind => panic!("{kind:?}"),
    }
}

#[test]
fn a_cache_is_shared_by_those_who_call_it_the_same() {
    let name = |lines: &str| cache(lines).0;
    let one = name("RUN --mount=type=cache,target=/var/cache/x x");
    let same = [
        "RUN --mount=type=cache,target=/var/cache/x/ y",
        "RUN --mount=type=cache,target=/var//y/../cache/x y",
        "RUN --mount=type=cache,target=/elsewhere,id=/var/cache/x y",
        "USER u\nRUN --mount=type=cache,target=/var/cache/x,sharing=locked,uid=5,mode=700,ro y",
        "RUN --mount=type=cache,target=/var/cache/x,from=scratch y",
    ];
    for lines in same {
        assert_eq!(name(lines), one, "{lines}");
    }
    let others = [
        "RUN --mount=type=cache,target=/var/cache/x2 x",
        "WORKDIR /var\nRUN --mount=type=cache,target=cache/x x",
        "RUN --mount=type=cache,target=/var/cache/x,id=x x",
        "RUN --mount=type=cache,target=/var/cache/x,from=tools x",
    ];
    for lines in others {
        assert_ne!(name(lines), one, "{lines}");
    }
    let text = "FROM base\nRUN --mount=type=cache,target=/var/cache/x x\n";
    let plan = bench().build_arg("BUILDKIT_CACHE_MOUNT_NS", "team").plan(text);
    assert!(matches!(&plan.commands().next().unwrap().1.mounts[0].kind, MountKind::Cache { name, .. } if *name != one));
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
}

#[test]
fn the_name_of_a_cache_says_nothing_about_paths() {
    for id in ["../../etc", "/etc", "a/b", "..", "\\0"] {
        let (name, ..) = cache(&format!("RUN --mount=type=cache,target=/c,id={id} x"));
        assert!(name.hex().bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    }
}

#[test]
fn a_cache_has_a_mode_and_owners() {
    let (_, sharing, access, read_only) = cache("RUN --mount=type=cache,target=/c x");
    assert_eq!((sharing, read_only), (MountSharing::Shared, false));
    assert_eq!(access, Access { mode: 0o755, uid: 0, gid: 0 });
    let (_, sharing, access, read_only) =
        cache("ARG ID=9\nRUN --mount=type=cache,target=/c,sharing=private,mode=0700,uid=$ID,gid=8,readonly x");
    assert_eq!((sharing, read_only), (MountSharing::Private, true));
    assert_eq!(access, Access { mode: 0o700, uid: 9, gid: 8 });
    let error = bench().error("FROM base\nRUN --mount=type=cache,target=/c,source=/x x\n");
    assert!(error.contains("'/x' does not exist in an empty cache") && error.contains("Dockerfile:2:41"), "{error}");
}

#[test]
fn a_tmpfs_has_a_size_and_one_that_cannot_be_written_to_is_empty() {
    let kind = |lines: &str| run_of(lines).mounts.remove(0).kind;
    assert_eq!(kind("RUN --mount=type=tmpfs,target=/t,size=1k x"), MountKind::Tmpfs { size: Some(1024) });
    assert_eq!(kind("RUN --mount=type=tmpfs,target=/t x"), MountKind::Tmpfs { size: None });
    let read_only = kind("RUN --mount=type=tmpfs,target=/t,ro x");
    assert!(matches!(read_only, MountKind::Bind { source: MountSource { from: None, .. }, read_only: true }));
}

#[test]
fn a_secret_is_a_file_or_a_variable_or_both() {
    let file = run_of("RUN --mount=type=secret,id=a x");
    let access = Access { mode: 0o400, uid: 0, gid: 0 };
    assert_eq!(file.mounts[0].kind, MountKind::Secret { id: "a".into(), required: false, access });
    assert!(file.secrets.is_empty());
    let variable = run_of("RUN --mount=type=secret,id=a,env=TOKEN,required x");
    assert!(variable.mounts.is_empty());
    let [SecretVariable { name, id, required: true, .. }] = &variable.secrets[..] else { panic!("{variable:?}") };
    assert_eq!((name.as_str(), id.as_str()), ("TOKEN", "a"));
    let both = run_of("RUN --mount=type=secret,source=a,env=TOKEN,target=/s,mode=0440,uid=1,gid=2 x");
    assert_eq!((both.mounts[0].target.as_str(), both.secrets.len()), ("/s", 1));
    let access = Access { mode: 0o440, uid: 1, gid: 2 };
    assert_eq!(both.mounts[0].kind, MountKind::Secret { id: "a".into(), required: false, access });
}

#[test]
fn secrets_are_in_no_history_and_shown_as_stars() {
    let text = "FROM base\nRUN --mount=type=secret,id=a,env=TOKEN curl -u $TOKEN\n";
    let plan = bench().plan(text);
    assert_eq!(plan.lines().last(), Some(&"RUN /bin/sh -c curl -u $TOKEN # buildkit"));
    let (step, run) = plan.commands().next().unwrap();
    assert_eq!(step.text, "RUN --mount=type=secret,id=a,env=TOKEN curl -u ****");
    assert_eq!(seen(run, "TOKEN"), None);
}

#[test]
fn agents_have_sockets_and_the_first_is_in_the_environment() {
    let run = run_of("RUN --mount=type=ssh --mount=type=ssh,id=other,mode=0666,uid=1,gid=2,required x");
    assert_eq!(seen(&run, "SSH_AUTH_SOCK"), Some("/run/buildkit/ssh_agent.0"));
    let access = Access { mode: 0o600, uid: 0, gid: 0 };
    assert_eq!(run.mounts[0].kind, MountKind::Ssh { id: "default".into(), required: false, access });
    let access = Access { mode: 0o666, uid: 1, gid: 2 };
    assert_eq!(run.mounts[1].target, "/run/buildkit/ssh_agent.1");
    assert_eq!(run.mounts[1].kind, MountKind::Ssh { id: "other".into(), required: true, access });
    let own = run_of("ENV SSH_AUTH_SOCK=/mine\nRUN --mount=type=ssh,target=/mine x");
    assert_eq!((seen(&own, "SSH_AUTH_SOCK"), own.mounts[0].target.as_str()), (Some("/mine"), "/mine"));
    assert_eq!(seen(&run_of("RUN x"), "SSH_AUTH_SOCK"), None);
}

#[test]
fn a_script_is_a_file_that_the_shell_executes() {
    let run = run_of("RUN <<EOF\n#!/usr/bin/env python3\nprint()\nEOF");
    assert_eq!(run.argv, ["/bin/sh", "-c", "/dev/pipes/EOF"]);
    assert_eq!(run.mounts[0].target, "/dev/pipes/EOF");
    let content = "#!/usr/bin/env python3\nprint()\n".to_owned();
    assert_eq!(run.mounts[0].kind, MountKind::Script { content });
    let plan = bench().plan("FROM base\nSHELL [\"/s\", \"-x\"]\nRUN <<a\n#!/b\na\n");
    assert_eq!(plan.lines().last(), Some(&"RUN /s -x /dev/pipes/a # buildkit"));
}

#[test]
fn history_names_the_command_without_its_flags() {
    let text = "FROM base\nRUN --mount=type=cache,target=/c --network=none a  $b\nRUN --mount=target=/c [\"a\", \"b\"]\n\
                RUN --mount=type=tmpfs,target=/t <<E\nc\nE\nRUN --security=sandbox cat <<E\nd\nE\n";
    let expected = [
        "RUN /bin/sh -c a  $b # buildkit",
        "RUN a b # buildkit",
        "RUN /bin/sh -c c\n # buildkit",
        "RUN /bin/sh -c cat <<E\nd\nE # buildkit",
    ];
    assert_eq!(bench().plan(text).lines(), expected);
}

#[test]
fn a_run_without_a_command_is_refused() {
    let error = bench().error("FROM base\nRUN [ ]\n");
    assert!(error.contains("RUN [] has no command to execute") && error.contains("Dockerfile:2:1"), "{error}");
}

#[test]
fn a_run_without_a_network_says_so() {
    assert!(run_of("RUN --network=none x").no_network.is_some());
    for value in ["default", "host"] {
        assert_eq!(run_of(&format!("RUN --network={value} x")).no_network, None, "{value}");
    }
}

#[test]
fn a_run_may_have_a_host_name() {
    let text = "FROM base\nRUN x\n";
    let plan = bench().build_arg("BUILDKIT_SANDBOX_HOSTNAME", "builder").plan(text);
    assert_eq!(plan.commands().next().unwrap().1.hostname.as_deref(), Some("builder"));
    assert_eq!(run_of("RUN x").hostname, None);
}

#[test]
fn privileges_and_devices_are_refused_with_the_reason() {
    let cases = [
        ("RUN --security=insecure x", "RUN --security=insecure: the builder has no privileges to give", "2:16"),
        ("RUN --device=vendor.com/gpu=0 x", "RUN --device=vendor.com/gpu=0: the builder has no CDI devices", "2:14"),
    ];
    for (line, message, place) in cases {
        let error = bench().error(&format!("FROM base\n{line}\n"));
        assert!(error.contains(message) && error.contains(&format!("Dockerfile:{place}\n")), "{error}");
    }
    bench().plan("FROM base\nRUN --security=sandbox x\n");
}

#[test]
fn keys_know_what_changes_the_result_of_a_mount() {
    let bench = bench().image("tools2", "{}");
    let same = |one: &str, other: &str| {
        let key = |line: &str| bench.keys(&format!("FROM base\n{line}\n"))[0];
        key(one) == key(other)
    };
    let equal = [
        ("RUN x", "RUN --network=host --security=sandbox x"),
        ("RUN --mount=type=secret,id=a x", "RUN --mount=type=secret,id=a,required x"),
        ("RUN --mount=type=cache,target=/c x", "RUN --mount=type=cache,target=/c,sharing=locked x"),
        ("RUN --mount=target=/a x", "RUN --mount=type=bind,dst=/a,ro,src=. x"),
        ("RUN --mount=target=/a --mount=type=ssh x", "RUN --mount=type=ssh --mount=target=/a x"),
        ("RUN --mount=from=tools,target=/a,source=/b x", "RUN --mount=from=tools,target=/a,source=b/../b/ x"),
    ];
    let different = [
        ("RUN x", "RUN --network=none x"),
        ("RUN x", "RUN --mount=target=/a x"),
        ("RUN --mount=target=/a x", "RUN --mount=target=/b x"),
        ("RUN --mount=target=/a x", "RUN --mount=target=/a,rw x"),
        ("RUN --mount=target=/a x", "RUN --mount=target=/a,source=d x"),
        ("RUN --mount=target=/a,from=tools x", "RUN --mount=target=/a,from=tools2 x"),
        ("RUN --mount=target=/a,from=tools x", "RUN --mount=target=/a,from=tools,source=b x"),
        ("RUN --mount=type=cache,target=/c x", "RUN --mount=type=cache,target=/c,id=x x"),
        ("RUN --mount=type=cache,target=/c x", "RUN --mount=type=cache,target=/c,uid=1 x"),
        ("RUN --mount=type=tmpfs,target=/c x", "RUN --mount=type=tmpfs,target=/c,size=1k x"),
        ("RUN --mount=type=secret,id=a x", "RUN --mount=type=secret,id=b,target=/run/secrets/a x"),
        ("RUN --mount=type=secret,id=a x", "RUN --mount=type=secret,id=a,env=A x"),
        ("RUN --mount=type=secret,id=a,env=A x", "RUN --mount=type=secret,id=a,env=B x"),
        ("RUN --mount=type=ssh x", "RUN --mount=type=ssh,mode=666 x"),
        ("RUN <<E\n#!/a\nb\nE", "RUN <<E\n#!/a\nc\nE"),
    ];
    for (one, other) in equal {
        assert!(same(one, other), "{one} and {other}");
    }
    for (one, other) in different {
        assert!(!same(one, other), "{one} and {other}");
    }
    let text = "FROM base\nRUN x\n";
    let other = Bench::new().image("base", "{}");
    assert_ne!(bench.keys(text), other.build_arg("BUILDKIT_SANDBOX_HOSTNAME", "h").keys(text));
}

#[test]
fn keys_know_the_files_of_the_context_that_are_mounted() {
    let bench = bench();
    let key = || bench.keys("FROM base\nRUN --mount=target=/a,source=d x\n")[0];
    let before = key();
    fs::write(bench.directory.path().join("f"), "other").unwrap();
    assert_eq!(key(), before);
    fs::write(bench.directory.path().join("d/g"), "other").unwrap();
    assert_ne!(key(), before);
    let stage = |command: &str| {
        bench.keys(&format!("FROM base AS a\nRUN {command}\nFROM base\nRUN --mount=from=a,target=/t x\n"))[0]
    };
    assert_ne!(stage("one"), stage("two"));
}
