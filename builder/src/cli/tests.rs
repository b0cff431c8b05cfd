//! Command lines as pipelines write them.

mod contract;
mod recipes;

use yadokari_layers::Compression;

use super::args::ContextMode;
use super::*;
use crate::progress::Level;

/// Parses words as the program of that name would get them.
fn words(line: &str) -> Vec<OsString> {
    line.split(' ').map(OsString::from).collect()
}

fn command(line: &str) -> Command {
    parse(words(line)).unwrap_or_else(|error| panic!("{line}: {error}")).command
}

fn build(line: &str) -> Build {
    match command(line) {
        Command::Build(build) => *build,
        other => panic!("{line}: {other:?}"),
    }
}

fn error(line: &str) -> String {
    parse(words(line)).err().unwrap_or_else(|| panic!("{line} is taken")).to_string()
}

#[test]
fn a_build_needs_no_subcommand_whatever_the_program_is_called() {
    for program in ["yadokari", "/kaniko/executor", "yadokari build", "./x"] {
        assert_eq!(build(&format!("{program} --context /c -d r/i:t")).context, "/c", "{program}");
    }
    assert!(build("/kaniko/executor").destination.is_empty());
    assert!(matches!(command("executor version"), Command::Version));
    assert!(matches!(command("executor --version"), Command::Version));
    assert!(matches!(command("yadokari doctor --driver flat"), Command::Doctor(_)));
    assert_eq!(build("executor --target doctor").target.as_deref(), Some("doctor"));
}

#[test]
fn a_look_takes_the_flags_of_a_build() {
    let Command::Check(check) = command("yadokari check -c /c --build-arg A=1 --target t -d r/i --format json") else {
        panic!("no check")
    };
    assert_eq!((check.format, check.build.context.as_str()), (Format::Json, "/c"));
    assert_eq!((&check.build.build_arg[..], check.build.target.as_deref()), (&["A=1".to_owned()][..], Some("t")));
    assert!(matches!(command("yadokari check"), Command::Check(check) if check.format == Format::Text));
    assert!(error("yadokari check --format xml").contains("text, json"));
}

#[test]
fn the_number_of_jobs_is_given_or_fits_the_machine() {
    let jobs = |line: &str| build(line).jobs().get();
    assert_eq!((jobs("yadokari --jobs 1"), jobs("yadokari --jobs=3 --jobs 7")), (1, 7));
    let cpus = std::thread::available_parallelism().unwrap().get();
    assert_eq!(jobs("yadokari"), cpus.max(4));
    for wrong in ["0", "-1", "many", ""] {
        assert!(error(&format!("yadokari --jobs={wrong}")).contains("--jobs"), "{wrong}");
    }
}

#[test]
fn looks_at_the_cache_take_the_flags_of_a_build() {
    let line = "yadokari plan -c /c -d r/i --cache-repo oci:d --format json";
    let Command::Plan(look) = command(line) else { panic!("no plan") };
    assert_eq!((look.format, look.build.context.as_str()), (Format::Json, "/c"));
    let Command::Key(build) = command("yadokari key -c /c --target t") else { panic!("no key") };
    assert_eq!(build.target.as_deref(), Some("t"));
    assert!(error("yadokari key --format json").contains("--format"));
    assert!(matches!(command("yadokari gc --cache-repo oci:d --delete"), Command::Gc(_)));
    assert!(error("yadokari gc -d r/i").contains("'-d'"));
}

#[test]
fn a_look_needs_no_destination_and_only_one_at_the_cache_has_one() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("Dockerfile"), "FROM scratch\n").unwrap();
    let cache = |flags: &str| {
        let line = format!("yadokari {flags} -c {}", directory.path().display());
        match interpret(parse(words(&line)).unwrap()).map_err(|error| error.to_string())? {
            Invocation::Check(look) | Invocation::Plan(look) => Ok::<_, String>(look.build.request.cache),
            Invocation::Build(build) | Invocation::Key(build) => Ok(build.request.cache),
            _ => panic!("{line}"),
        }
    };
    for flags in ["check --cache", "key --cache", "build --no-push", "build -d r/i --cache=false"] {
        assert!(cache(flags).unwrap().is_none(), "{flags}");
    }
    for flags in [
        "plan -d r.example/i",
        "plan --cache-repo oci:d",
        "build -d r.example/i --cache",
        "build --no-push --cache-from oci:d",
    ] {
        assert!(cache(flags).unwrap().is_some(), "{flags}");
    }
    assert!(cache("plan").unwrap_err().starts_with("--cache-repo: without --destination"));
    assert!(cache("build --no-push --cache").is_err());
}

#[test]
fn what_cannot_be_fetched_hides_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("Dockerfile");
    fs::write(&path, "FROM oci:/no/such/layout\nCMD a\nFROM scratch\nCMD b\n").unwrap();
    let line = format!("yadokari check -c {} -f {}", directory.path().display(), path.display());
    let Invocation::Check(look) = interpret(parse(words(&line)).unwrap()).unwrap_or_else(|error| panic!("{error}"))
    else {
        panic!("{line} is no check")
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let report = runtime.block_on(crate::check::check(&look.build.request, &look.build.progress));
    assert_eq!((report.warnings.len(), report.errors.len()), (1, 1));
    assert!(report.errors[0].to_string().contains("oci:/no/such/layout"), "{}", report.errors[0]);
    assert_ne!(report.exit_code(), 65);
}

#[test]
fn values_follow_a_space_or_an_equals_sign() {
    for line in [
        "executor --context=/c -f=D",
        "executor --context /c -f D",
        "executor -c /c -fD",
        "executor -c=/c --dockerfile D",
    ] {
        let build = build(line);
        assert_eq!((build.context.as_str(), build.dockerfile.as_path()), ("/c", Path::new("D")), "{line}");
    }
    assert_eq!(build("executor --tarPath=/t").tar_path, Some("/t".into()));
    assert_eq!(build("executor").context, "/workspace/");
}

#[test]
fn truth_values_are_gos_and_may_follow_a_space() {
    for (line, expected) in [
        ("", false),
        (" --no-push", true),
        (" --no-push=true", true),
        (" --no-push true", true),
        (" --no-push=1", true),
        (" --no-push=T", true),
        (" --no-push=false", false),
        (" --no-push false", false),
        (" --no-push=0", false),
        (" --no-push --force", true),
        (" --no-push --no-push=false", false),
    ] {
        let line = format!("executor{line} -d r/i");
        assert_eq!(build(&line).no_push, expected, "{line}");
    }
    let build = build("executor --cleanup true --force --insecure false --insecure-pull -d r/i");
    assert!(build.cleanup && build.force && !build.registry.insecure && build.registry.insecure_pull);
    assert!(error("executor --no-push=maybe").contains("write true or false"));
    assert!(error("executor --no-push maybe").contains("write true or false"));
}

#[test]
fn lists_repeat_and_do_not_split_at_commas() {
    let build = build(
        "executor --build-arg A=1,2 --build-arg B=3 -d a,b -d c --destination=e --label x=1,y=2 --insecure-registry h:1",
    );
    assert_eq!(build.build_arg, ["A=1,2", "B=3"]);
    assert_eq!(build.destination, ["a,b", "c", "e"]);
    assert_eq!(build.label, ["x=1,y=2"]);
    assert_eq!(build.labels().unwrap(), [("x".to_owned(), "1,y=2".to_owned())]);
    assert_eq!(build.registry.insecure_registry, ["h:1"]);
}

#[test]
fn of_a_flag_given_twice_the_later_one_holds() {
    let build = build("executor --context a --context b --target x --target=y --verbosity debug -v warn");
    assert_eq!((build.context.as_str(), build.target.as_deref()), ("b", Some("y")));
    assert_eq!(build.log.verbosity.level(), Level::Warn);
}

#[test]
fn levels_are_named_as_logrus_names_them() {
    for (name, level) in [
        ("panic", Level::Error),
        ("ERROR", Level::Error),
        ("warning", Level::Warn),
        ("Info", Level::Info),
        ("trace", Level::Debug),
    ] {
        assert_eq!(build(&format!("executor -v {name}")).log.verbosity.level(), level, "{name}");
    }
    assert!(error("executor -v loud").contains("loud"));
}

#[test]
fn what_is_not_a_flag_is_refused() {
    for line in ["executor --no-such-flag", "executor stray", "executor --context /c stray"] {
        error(line);
    }
    assert!(error("executor --build-arg").contains("--build-arg"));
}

#[test]
fn outputs_and_attestations_that_are_not_made_are_refused_by_name() {
    for flag in ["--attest", "--provenance", "--sbom", "--force-compression", "--iidfile", "--push-by-digest"] {
        let error = error(&format!("executor -d r/i {flag}=x"));
        assert!(error.contains(&format!("'{flag}'")), "{error}");
    }
}

#[test]
fn the_flags_of_the_cache_are_read_as_pipelines_write_them() {
    for (line, cache) in [
        ("executor", None),
        ("executor --cache", Some(true)),
        ("executor --cache true", Some(true)),
        ("executor --cache=true --cache=0", Some(false)),
        ("executor --cache --cache-ttl=2190h0m0s --cache-copy-layers --cache-run-layers=false", Some(true)),
        ("executor --cache --cache-repo oci:/cache --cache-from r/a --cache-from r/b", Some(true)),
    ] {
        assert_eq!(build(line).cache.cache, cache, "{line}");
    }
    let plain = build("executor");
    assert!(plain.context_mode == ContextMode::Git && !plain.skip_existing);
    let other = build("executor --context-mode=raw --skip-existing");
    assert!(other.context_mode == ContextMode::Raw && other.skip_existing);
    assert!(error("executor --context-mode=tree").contains("git, raw"));
    assert!(error("executor --cache-ttl=soon").contains("'soon' is not a duration"));
}

#[test]
fn layers_are_compressed_as_the_flags_say() {
    let options = |flags: &str| {
        let options = build(&format!("executor -d r/i{flags}")).layers.options().map_err(|error| error.to_string())?;
        Ok::<_, String>((options.compression, options.level))
    };
    for (flags, compression, level) in [
        ("", Compression::Gzip, None),
        (" --compression=gzip --compression-level=-1", Compression::Gzip, None),
        (" --compression-level 0", Compression::Gzip, Some(0)),
        (" --compression-level=9", Compression::Gzip, Some(9)),
        (" --compression zstd", Compression::Zstd, None),
        (" --compression=zstd --compression-level -1", Compression::Zstd, None),
        (" --compression=zstd --compression-level 22", Compression::Zstd, Some(22)),
        (" --compression=zstd --compression=gzip", Compression::Gzip, None),
    ] {
        assert_eq!(options(flags), Ok((compression, level)), "{flags}");
    }
    for (flags, levels) in [
        (" --compression-level=10", "gzip has the levels 0 to 9"),
        (" --compression-level=-2", "gzip has the levels 0 to 9"),
        (" --compression=zstd --compression-level=0", "zstd has the levels 1 to 22"),
        (" --compression=zstd --compression-level=23", "zstd has the levels 1 to 22"),
    ] {
        let error = options(flags).unwrap_err();
        assert!(error.starts_with("--compression-level: ") && error.contains(levels), "{error}");
    }
    assert!(error("executor --compression=brotli").contains("gzip, zstd"));
    assert!(error("executor --compression-level=best").contains("'best'"));
}

#[test]
fn layers_are_merged_where_a_flag_says_so() {
    for (flags, expected) in [("", false), (" --squash", true), (" --squash true", true), (" --squash=false", false)] {
        assert_eq!(build(&format!("executor -d r/i{flags}")).layers.squash, expected, "{flags}");
    }
}

#[test]
fn what_layers_may_say_of_times_is_a_flag() {
    for (flags, expected) in [("", false), (" --reproducible", true), (" --reproducible=true --reproducible=0", false)]
    {
        assert_eq!(build(&format!("executor -d r/i{flags}")).layers.reproducible, expected, "{flags}");
    }
    assert!(error("executor --reproducible=maybe").contains("write true or false"));
}

#[test]
fn a_build_arg_without_a_value_takes_the_environments() {
    let env = |name: &str| (name == "SET").then(|| "from env".to_owned());
    let (given, unset) =
        build("executor --build-arg SET --build-arg UNSET --build-arg E= --build-arg A=b=c").build_args(&env).unwrap();
    let expected = [("SET", "from env"), ("E", ""), ("A", "b=c")];
    assert_eq!(given, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(unset, ["UNSET"]);
    assert!(build("executor --build-arg =x").build_args(&env).is_err());
    assert!(build("executor --build-arg=").build_args(&env).is_err());
}

#[test]
fn the_epoch_is_a_build_argument_or_the_environments() {
    let of = |given: &[&str], env: Option<&str>| {
        let given: Vec<_> = given.iter().map(|value| ("SOURCE_DATE_EPOCH".to_owned(), (*value).to_owned())).collect();
        epoch(&given, &|name| env.filter(|_| name == "SOURCE_DATE_EPOCH").map(str::to_owned))
    };
    assert_eq!(of(&[], None).unwrap(), None);
    assert_eq!(of(&[], Some("7")).unwrap(), Some(7));
    assert_eq!(of(&["1", "2"], Some("7")).unwrap(), Some(2));
    assert_eq!(of(&[""], Some("7")).unwrap(), None);
    assert_eq!(of(&[], Some("")).unwrap(), None);
    assert!(of(&[], Some("yesterday")).unwrap_err().to_string().contains("'yesterday'"));
}

#[test]
fn an_image_needs_somewhere_to_go() {
    let destinations = |args: &Build| destinations(args, names(args, None, &|_| None)?);
    assert!(destinations(&build("executor")).is_err());
    assert!(destinations(&build("executor --tar-path /t")).is_err());
    assert!(destinations(&build("executor --no-push")).unwrap().is_empty());
    assert!(destinations(&build("executor --no-push --tar-path= --oci-layout-path=")).unwrap().is_empty());
    let all =
        destinations(&build("executor -d r.example/i:v1 -d r.example/j --tar-path /t --oci-layout-path /o")).unwrap();
    let [Destination::Layout { tag, .. }, Destination::Tarball { names, .. }, Destination::Registry(first), _] =
        &all[..]
    else {
        panic!("{all:?}")
    };
    assert_eq!((tag.as_str(), names.len(), first.to_string().as_str()), ("v1", 2, "r.example/i:v1"));
    assert!(destinations(&build("executor -d UPPER/case")).is_err());
    let all = destinations(&build("executor -d r.example/i:{key} -d r.example/i:v1 --oci-layout-path /o")).unwrap();
    assert_eq!(all.iter().map(Destination::needs_key).collect::<Vec<_>>(), [true, true, false]);
    assert!(destinations(&build("executor -d r.example/{key}")).unwrap_err().to_string().contains("tags only"));
    assert!(destinations(&build("executor --destination=")).is_err());
    let alone = destinations(&build("executor -o dir")).unwrap();
    assert_eq!(alone, [Destination::Root(output::Export::Directory("dir".into()))]);
    assert_eq!(destinations(&build("executor --output dir -d r.example/i")).unwrap().len(), 2);
    assert_eq!(destinations(&build("executor --output dir -d r.example/i --no-push")).unwrap().len(), 1);
}

#[test]
fn registry_maps_are_separated_by_semicolons() {
    let maps = build("executor --registry-map a=b;c=d/e --registry-map f=g").registry.maps().unwrap();
    let expected = [("a", "b"), ("c", "d/e"), ("f", "g")];
    assert_eq!(maps, expected.map(|(from, to)| (from.to_owned(), to.to_owned())));
    assert!(build("executor --registry-map a").registry.maps().is_err());
}

#[test]
fn the_dockerfile_is_looked_for_as_named_and_then_below_the_context() {
    let directory = tempfile::tempdir().unwrap();
    let (context, outside) = (directory.path().join("context"), directory.path().join("Other"));
    fs::create_dir(&context).unwrap();
    fs::write(&outside, "").unwrap();
    assert_eq!(paths::dockerfile(&outside, &context), outside);
    assert_eq!(paths::dockerfile(Path::new("no-such/Dockerfile"), &context), context.join("no-such/Dockerfile"));
    assert_eq!(paths::dockerfile(Path::new(""), &context), context.join("Dockerfile"));
    // The directory of the tests is the package's, which has a Cargo.toml.
    fs::write(context.join("Cargo.toml"), "").unwrap();
    assert_eq!(paths::dockerfile(Path::new("Cargo.toml"), &context), Path::new("Cargo.toml"));
}

#[test]
fn platforms_come_from_either_flag_separated_or_repeated_each_once() {
    let platforms = |line: &str| {
        let (platforms, is_index) = build(line).platforms(&[]).unwrap();
        (platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), is_index)
    };
    let cases = [
        ("executor", "", false),
        ("executor --platform=", "", false),
        ("executor --customPlatform=linux/arm64", "linux/arm64", false),
        ("executor --custom-platform linux/arm/7", "linux/arm/v7", false),
        ("executor --platform linux/amd64,linux/arm64", "linux/amd64 linux/arm64", true),
        ("executor --platform linux/arm64 --platform=linux/amd64", "linux/arm64 linux/amd64", true),
        ("executor --platform linux/arm64,linux/arm64/v8,linux/aarch64", "linux/arm64", false),
    ];
    for (line, expected, is_index) in cases {
        assert_eq!(platforms(line), (expected.to_owned(), is_index), "{line}");
    }
}

#[test]
fn an_argument_decides_whether_one_platform_makes_an_index() {
    let is_index = |line: &str, value: &str| {
        let given = [("BUILDKIT_MULTI_PLATFORM".to_owned(), value.to_owned())];
        build(line).platforms(&given).map(|(_, is_index)| is_index).map_err(|error| error.to_string())
    };
    assert_eq!(is_index("executor", "1"), Ok(true));
    assert_eq!(is_index("executor", "false"), Ok(false));
    assert_eq!(is_index("executor", ""), Ok(false));
    let several = "executor --platform=linux/amd64,linux/arm64";
    assert_eq!(is_index(several, "true"), Ok(true));
    assert!(is_index(several, "0").unwrap_err().contains("several values of --platform"));
    assert!(is_index("executor", "maybe").unwrap_err().contains("BUILDKIT_MULTI_PLATFORM"));
}

#[test]
fn platforms_that_cannot_be_are_refused() {
    let error = |line: &str| build(line).platforms(&[]).unwrap_err().to_string();
    assert!(error("executor --platform=linux/amd46").contains("--platform: platform 'linux/amd46': 'amd46'"));
    assert!(error("executor --platform=all").contains("no architecture"));
    let error = error("executor --platform=linux/amd64,linux/arm64 --tar-path=/t");
    assert!(error.contains("--tar-path") && error.contains("--oci-layout-path"), "{error}");
}

#[test]
fn named_contexts_have_a_name_and_a_value() {
    let contexts = |line: &str| build(line).named_contexts().map_err(|error| error.to_string());
    let given = contexts("executor --build-context a=dir --build-context=b=docker-image://c").unwrap();
    assert_eq!(given.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(given[0].1.directory(), Some(Path::new("dir")));
    assert!(contexts("executor --build-context dir").unwrap_err().contains("NAME=VALUE"));
    assert!(contexts("executor --build-context a=target:b").unwrap_err().contains("--build-context: a: 'target:'"));
}
