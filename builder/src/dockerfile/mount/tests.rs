//! Mounts as they are written.

use super::*;
use crate::dockerfile::{InstructionKind, Source, expand, parse};

/// The Dockerfile with `--mount` and this value.
fn source(value: &str) -> Source {
    Source::new("Dockerfile", format!("FROM a\nRUN --mount={value} b\n"))
}

fn flag(source: &Source) -> Result<MountFlag, Diagnostic> {
    let mut dockerfile = parse(source)?;
    match dockerfile.stages.remove(0).instructions.remove(0).kind {
        InstructionKind::Run(mut run) => Ok(run.mounts.remove(0)),
        other => panic!("{other:?}"),
    }
}

fn read_of(source: &Source) -> Result<MountOptions, Diagnostic> {
    let variables = |name: &str| match name {
        "type" => Some("cache".to_owned()),
        "dir" => Some("/a b".to_owned()),
        _ => None,
    };
    let mut replace = |word: &Word| Ok(expand(word, '\\', &variables)?);
    flag(source)?.read(&mut replace).map_err(|error| match error {
        crate::Error::Dockerfile(diagnostic) => diagnostic,
        other => panic!("{other}"),
    })
}

fn options(value: &str) -> MountOptions {
    let source = source(value);
    read_of(&source).unwrap_or_else(|error| panic!("{}", error.render(&source, false)))
}

fn raw(word: &Option<Word>) -> Option<&str> {
    word.as_ref().map(|word| word.raw.as_str())
}

#[test]
fn a_mount_is_a_bind_mount_unless_it_says_otherwise() {
    let bind = options("target=/t");
    assert_eq!((bind.kind, raw(&bind.target), bind.read_only), (MountType::Bind, Some("/t"), true));
    let types = [("bind", true), ("cache", false), ("tmpfs", false), ("secret", true), ("ssh", true), ("Cache", false)];
    for (name, read_only) in types {
        let options = options(&format!("target=/t,type={name}"));
        assert_eq!((options.kind.name(), options.read_only), (&*name.to_lowercase(), read_only), "{name}");
    }
}

#[test]
fn keys_have_other_names_and_any_case() {
    for value in ["source=s,target=t", "src=s,dst=t", "SRC=s,Destination=t", "source=x,src=s,dst=x,target=t"] {
        let options = options(value);
        assert_eq!((raw(&options.source), raw(&options.target)), (Some("s"), Some("t")), "{value}");
    }
}

#[test]
fn a_switch_is_bare_or_has_a_value() {
    let cases = [
        ("ro", true),
        ("rw", false),
        ("readonly", true),
        ("readwrite", false),
        ("ro=false", false),
        ("rw=0", true),
        ("readonly=T", true),
        ("readwrite=True", false),
        ("rw,ro", true),
        ("ro=1,rw=1", false),
    ];
    for (switch, read_only) in cases {
        assert_eq!(options(&format!("target=/t,{switch}")).read_only, read_only, "{switch}");
    }
    for (switch, required) in [("required", true), ("required=true", true), ("required=f", false), ("id=a", false)] {
        assert_eq!(options(&format!("type=secret,target=/t,{switch}")).required, required, "{switch}");
        assert_eq!(options(&format!("{switch},type=ssh")).required, required, "{switch}");
    }
}

#[test]
fn values_are_expanded_and_quoted_fields_hold_commas() {
    let expanded = options("type=$type,target=${dir}/c,id=${none:-x}");
    assert_eq!((expanded.kind, raw(&expanded.target)), (MountType::Cache, Some("/a b/c")));
    assert_eq!(expanded.id.as_deref(), Some("x"));
    let quoted = options(r#"'type=cache,"target=/a,b",id=c'"#);
    assert_eq!((raw(&quoted.target), quoted.id.as_deref()), (Some("/a,b"), Some("c")));
    assert_eq!(raw(&options("target=$none").target), None);
}

#[test]
fn numbers_are_read() {
    let all = options("type=cache,target=/t,mode=0750,uid=0,gid=1000,sharing=LOCKED");
    assert_eq!((all.mode, all.uid, all.gid, all.sharing), (Some(0o750), Some(0), Some(1000), MountSharing::Locked));
    let sizes = [
        ("64m", Some(64 << 20)),
        ("1GiB", Some(1 << 30)),
        ("1.5kb", Some(1536)),
        ("'1 K'", Some(1024)),
        ("1000", Some(1000)),
        ("10b", Some(10)),
        ("0", None),
    ];
    for (size, expected) in sizes {
        assert_eq!(options(&format!("type=tmpfs,target=/t,size={size}")).size, expected, "{size}");
    }
}

#[test]
fn a_secret_is_known_by_its_id_its_source_or_its_target() {
    let cases = [
        ("id=a", "a"),
        ("source=a", "a"),
        ("src=a,target=/x/b", "a"),
        ("target=/x/b", "b"),
        ("target=/x/b/", "b"),
        ("id=a,target=b", "a"),
    ];
    for (value, id) in cases {
        assert_eq!(options(&format!("type=secret,{value}")).id.as_deref(), Some(id), "{value}");
    }
    assert_eq!(raw(&options("type=secret,id=a,env=TOKEN").env), Some("TOKEN"));
}

#[test]
fn wrong_mounts_are_refused_at_the_option() {
    let cases = [
        // The value, what the caret is under, the message, and the help.
        ("type=bindd,target=/t", "type=bindd", "there is no mount type 'bindd'", "did you mean type=bind?"),
        (
            "type=volume,target=/t",
            "type=volume",
            "there is no mount type 'volume'",
            "there are bind, cache, tmpfs, secret, ssh",
        ),
        ("type=cache,traget=/t", "traget=/t", "RUN --mount has no key 'traget'", "did you mean target?"),
        ("foo=1,target=/t", "foo=1", "RUN --mount has no key 'foo'", "the keys are type, from"),
        ("type=cache,target", "target", "'target' needs a value", "write target=VALUE"),
        ("target=/t,", "", "RUN --mount has no key ''", "the keys are"),
        ("target=/t,mode=755", "mode=755", "a bind mount has no 'mode'", "its keys are type, from, source"),
        ("target=/t,uid=1", "uid=1", "a bind mount has no 'uid'", "its keys"),
        ("target=/t,gid=1", "gid=1", "a bind mount has no 'gid'", "its keys"),
        ("type=tmpfs,target=/t,mode=755", "mode=755", "a tmpfs mount has no 'mode'", "its keys are type, target, size"),
        ("type=tmpfs,target=/t,uid=1", "uid=1", "a tmpfs mount has no 'uid'", "its keys"),
        ("type=tmpfs,target=/t,gid=1", "gid=1", "a tmpfs mount has no 'gid'", "its keys"),
        ("target=/t,sharing=locked", "sharing=locked", "a bind mount has no 'sharing'", "its keys"),
        ("type=tmpfs,target=/t,sharing=locked", "sharing=locked", "a tmpfs mount has no 'sharing'", "its keys"),
        ("type=secret,id=a,sharing=locked", "sharing=locked", "a secret mount has no 'sharing'", "its keys"),
        ("type=ssh,sharing=locked", "sharing=locked", "a ssh mount has no 'sharing'", "its keys"),
        ("type=secret,id=a,from=b", "from=b", "a secret mount has no 'from'", "its keys"),
        ("type=ssh,source=b", "source=b", "a ssh mount has no 'source'", "its keys"),
        ("target=/t,size=1m", "size=1m", "a bind mount has no 'size'", "its keys"),
        ("type=cache,target=/t,size=1m", "size=1m", "a cache mount has no 'size'", "its keys"),
        ("type=secret,id=a,size=1m", "size=1m", "a secret mount has no 'size'", "its keys"),
        ("target=/t,required", "required", "a bind mount has no 'required'", "its keys"),
        ("type=cache,target=/t,required=true", "required=true", "a cache mount has no 'required'", "its keys"),
        ("type=tmpfs,target=/t,required", "required", "a tmpfs mount has no 'required'", "its keys"),
        ("type=secret,id=a,source=b", "source=b", "a secret mount has both id and source", ""),
        ("type=secret", "type=secret", "a secret mount needs an id or a target", "write id=NAME"),
        ("type=secret,env=A", "type=secret,env=A", "a secret mount needs an id or a target", "write id=NAME"),
        ("type=secret,id=a,env=", "env=", "'' is not the name of an environment variable", ""),
        ("target=/t,ro=maybe", "ro=maybe", "'maybe' is not a truth value", "write ro, ro=true or ro=false"),
        ("type=ssh,required=yes", "required=yes", "'yes' is not a truth value", "write required"),
        (
            "type=cache,target=/t,sharing=lock",
            "sharing=lock",
            "there is no sharing 'lock'",
            "did you mean sharing=locked?",
        ),
        ("type=cache,target=/t,mode=rwx", "mode=rwx", "'rwx' is not a mode", "octal"),
        ("type=cache,target=/t,mode=10000", "mode=10000", "'10000' is not a mode", "octal"),
        ("type=cache,target=/t,mode=+7", "mode=+7", "'+7' is not a mode", "octal"),
        ("type=cache,target=/t,uid=root", "uid=root", "'root' is not the number of a user", "write the number"),
        ("type=cache,target=/t,gid=-1", "gid=-1", "'-1' is not the number of a group", "write the number"),
        ("type=cache,target=/t,uid=4294967295", "uid=4294967295", "'4294967295' is not the number", "write the number"),
        ("type=tmpfs,target=/t,size=big", "size=big", "'big' is not a size", "as in 64m"),
        ("type=tmpfs,target=/t,size=-1", "size=-1", "'-1' is not a size", "as in 64m"),
        ("type=tmpfs,target=/t,size=1x", "size=1x", "'1x' is not a size", "as in 64m"),
        ("type=tmpfs,target=/t,size=99999999p", "size=99999999p", "'99999999p' is not a size", "as in 64m"),
        ("target=${x", "${x", "the word ends before a closing '}'", ""),
        ("from=$image,target=/t", "$image", "variables are not expanded in from=", "define a stage with FROM"),
    ];
    for (value, at, message, help) in cases {
        let source = source(value);
        let error = read_of(&source).expect_err(value);
        assert!(error.message.starts_with(message), "{value}: {}", error.message);
        assert!(error.help.clone().unwrap_or_default().contains(help), "{value}: {:?}", error.help);
        let span = error.span.unwrap();
        assert_eq!(&source.text[span.start..span.end], at, "{value}");
    }
    let source = source(r#"'"target=/t'"#);
    assert!(read_of(&source).unwrap_err().message.starts_with("RUN --mount: a quoted field has no end"));
}

#[test]
fn what_means_nothing_for_a_type_is_a_warning() {
    let cases = [
        ("target=/t,id=x", "a bind mount has no 'id'"),
        ("type=tmpfs,target=/t,from=x", "a tmpfs mount has no 'from'"),
        ("type=cache,target=/t,env=x", "a cache mount has no 'env'"),
        ("type=secret,id=a,rw", "a secret mount has no 'rw'"),
        ("type=ssh,rw", "a ssh mount has no 'rw'"),
    ];
    for (value, message) in cases {
        let warnings: Vec<String> = options(value).warnings.into_iter().map(|warning| warning.message).collect();
        assert_eq!(warnings, [message], "{value}");
    }
    assert!(options("type=secret,id=a,ro").warnings.is_empty());
}

#[test]
fn the_source_of_a_mount_is_known_before_variables_are() {
    let from = |value: &str| flag(&source(value)).unwrap().from().map(|from| from.raw.clone());
    assert_eq!(from("from=a,target=$b").as_deref(), Some("a"));
    assert_eq!(from("FROM=a,from=b").as_deref(), Some("b"));
    assert_eq!(from("from=,target=/t"), None);
    assert_eq!(from("target=/t"), None);
}
