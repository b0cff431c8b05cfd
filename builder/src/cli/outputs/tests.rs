//! What is written, and where, against a client that has nobody to talk to.

use clap::Parser;
use yadokari_registry::ClientOptions;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    reports: ReportFlags,
    #[command(flatten)]
    form: FormFlags,
}

fn flags(words: &[&str]) -> Line {
    Line::try_parse_from(["x"].iter().chain(words)).unwrap_or_else(|error| panic!("{error}"))
}

fn client() -> Client {
    Client::new(ClientOptions::default()).unwrap()
}

fn described() -> Described {
    Described { media_type: "application/x".into(), size: 7, config: Some(Digest::of("config")) }
}

fn destinations() -> Vec<Reference> {
    ["r.example/app:1", "r.example/team/app:2"].map(|text| text.parse().unwrap()).to_vec()
}

/// The contents of the files that these flags ask for in a directory, which stands for DIR.
async fn written(words: &[&str], env: Environment<'_>) -> (tempfile::TempDir, Result<(), Error>) {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().display().to_string();
    let words: Vec<String> = words.iter().map(|word| word.replace("DIR", &place)).collect();
    let flags = flags(&words.iter().map(String::as_str).collect::<Vec<_>>());
    let env = |name: &str| env(name).map(|value| value.replace("DIR", &place));
    let reports = flags.reports.reports(true, &env).unwrap();
    let result = reports.write(&Digest::of("image"), Some(&described()), &destinations(), &client()).await;
    (directory, result)
}

#[tokio::test]
async fn digests_and_names_are_written_as_kaniko_writes_them() {
    let words = [
        "--digest-file=DIR/new/digest",
        "--image-name-with-digest-file=DIR/names",
        "--image-name-tag-with-digest-file=DIR/tags",
    ];
    let output = |name: &str| (name == "BUILDER_OUTPUT").then(|| "DIR".to_owned());
    let (directory, result) = written(&words, &output).await;
    result.unwrap();
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    let digest = Digest::of("image");
    assert_eq!(read("new/digest"), digest.to_string());
    assert_eq!(read("names"), format!("r.example/app@{digest}\nr.example/team/app@{digest}\n"));
    assert_eq!(read("tags"), format!("r.example/app:1@{digest}\nr.example/team/app:2@{digest}\n"));
    let lines: Vec<Value> = read("images").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let expected = ["r.example/app:1", "r.example/team/app:2"];
    assert_eq!(lines, expected.map(|name| json!({ "name": name, "digest": digest })));
}

#[tokio::test]
async fn metadata_has_the_keys_of_buildx() {
    let (directory, result) = written(&["--metadata-file", "DIR/m.json"], &|_| None).await;
    result.unwrap();
    let read: Value = serde_json::from_slice(&fs::read(directory.path().join("m.json")).unwrap()).unwrap();
    let digest = Digest::of("image");
    let expected = json!({
        "containerimage.config.digest": Digest::of("config"),
        "containerimage.descriptor": { "mediaType": "application/x", "digest": digest, "size": 7 },
        "containerimage.digest": digest,
        "image.name": "r.example/app:1,r.example/team/app:2",
    });
    assert_eq!(read, expected);
    let index = metadata(&digest, &Described { config: None, ..described() }, &[]);
    let keys: Vec<_> = index.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["containerimage.descriptor", "containerimage.digest"]);
}

#[tokio::test]
async fn nothing_is_written_that_nobody_asked_for() {
    let words = ["--digest-file=", "--image-name-with-digest-file=", "--metadata-file="];
    let (directory, result) = written(&words, &|_| Some(String::new())).await;
    result.unwrap();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_named() {
    let (_, result) = written(&["--digest-file=/proc/no/such"], &|_| None).await;
    let error = result.unwrap_err();
    assert!(error.to_string().starts_with("write '/proc/no/such': "), "{error}");
    assert_eq!(error.exit_code(), 74);
}

#[test]
fn results_go_to_files_to_the_output_and_to_urls_with_tls() {
    let place = |text: &str| place(DIGEST, &Some(text.into())).map_err(|error| error.to_string());
    assert_eq!(place("/dev/termination-log"), Ok(Some(Place::File("/dev/termination-log".into()))));
    assert_eq!(place("/dev/stdout"), Ok(Some(Place::StandardOutput)));
    assert_eq!(place("https://h/x?y"), Ok(Some(Place::Url("https://h/x?y".into()))));
    for url in ["http://h/x", "s3://b/x"] {
        assert!(place(url).unwrap_err().starts_with("--digest-file: of URLs only"), "{url}");
    }
}

#[tokio::test]
async fn a_digest_is_sent_by_put() {
    // Anything that answers HTTP will do; a registry's blob upload has another method.
    let served = yadokari_registry::Memory::new().serve().await.unwrap();
    let url = format!("http://user:secret@{}/v2/app/digest?token=secret", served.host());
    let error = put(&url, "sha256:x", &client()).await.unwrap_err();
    assert!(!error.to_string().contains("secret") && error.to_string().contains("/v2/app/digest"), "{error}");
    let seen = served.seen();
    assert_eq!((seen[0].method.as_str(), seen[0].received), ("PUT", 8));
}

#[test]
fn names_that_are_written_need_destinations() {
    for flag in [NAMES, TAGS] {
        let error = flags(&[&format!("{flag}=/x")]).reports.reports(false, &|_| None).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{flag}: ")) && error.contains("--destination"), "{error}");
    }
}

#[test]
fn annotations_are_for_images_or_their_index() {
    let form = |words: &[&str], is_index| {
        let form = flags(words).form.form(is_index, &pack::Options::default()).map_err(|error| error.to_string())?;
        let text = |map: BTreeMap<String, String>| {
            map.into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
        };
        Ok::<_, String>((text(form.annotations), text(form.index_annotations)))
    };
    let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
    assert_eq!(form(&[], false), pair("", ""));
    assert_eq!(
        form(&["--annotation", "b=1", "--annotation=a=x:y=z,w", "--annotation=b=2"], false),
        pair("a=x:y=z,w b=2", "")
    );
    assert_eq!(form(&["--annotation=manifest:a=1", "--annotation=index:a=2"], true), pair("a=1", "a=2"));
    assert_eq!(form(&["--annotation=manifest,index:a="], true), pair("a=", "a="));
    for (text, is_index, says) in [
        ("a", true, "not of the form"),
        ("=a", true, "not of the form"),
        ("index:a=1", false, "give several --platform"),
        ("manifest:=1", true, "has no name"),
        ("manifest-descriptor:a=1", true, "not for 'manifest-descriptor'"),
        ("manifest[linux/amd64]:a=1", true, "not for 'manifest[linux/amd64]'"),
    ] {
        let error = form(&["--annotation", text], is_index).unwrap_err();
        assert!(error.starts_with("--annotation: ") && error.contains(says), "{error}");
    }
}

#[test]
fn a_format_has_what_it_can_have() {
    let zstd = pack::Options { compression: Compression::Zstd, ..pack::Options::default() };
    let format = |words: &[&str], layers: &pack::Options| {
        flags(words).form.form(false, layers).map(|form| form.format).map_err(|error| error.to_string())
    };
    assert_eq!(format(&[], &zstd), Ok(Format::Oci));
    assert_eq!(format(&["--image-format=", "--annotation=a=b"], &zstd), Ok(Format::Oci));
    assert_eq!(format(&["--image-format", "docker"], &pack::Options::default()), Ok(Format::Docker));
    assert!(format(&["--image-format=docker"], &zstd).unwrap_err().contains("--compression=zstd"));
    let annotated = ["--image-format=docker", "--annotation=a=b"];
    assert!(format(&annotated, &pack::Options::default()).unwrap_err().starts_with("--annotation: "));
    assert!(
        Line::try_parse_from(["x", "--image-format=docker2"])
            .is_err_and(|e| e.to_string().contains("write oci or docker"))
    );
}

#[test]
fn what_is_written_to_a_host_that_must_not_be_asked_is_an_error_at_once() {
    let mut only = yadokari_registry::Hosts::default();
    only.add("own.example").unwrap();
    let client = Client::new(ClientOptions { only: Some(only), ..ClientOptions::default() }).unwrap();
    for flag in
        ["--digest-file", "--image-name-with-digest-file", "--image-name-tag-with-digest-file", "--metadata-file"]
    {
        let admitted = |url: &str| {
            let reports = flags(&[&format!("{flag}={url}")]).reports.reports(true, &|_| None).unwrap();
            reports.admitted(&client).map_err(|error| error.to_string())
        };
        let error = admitted("https://user:secret@h.example:8443/digest").unwrap_err();
        assert!(error.starts_with(&format!("{flag}: --offline: h.example is no host")), "{error}");
        assert!(!error.contains("secret") && error.contains("--offline-allow h.example"), "{error}");
        assert!(admitted("https://own.example/digest").is_ok() && admitted("/file").is_ok());
    }
}
