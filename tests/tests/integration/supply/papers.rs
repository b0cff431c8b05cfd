//! The bill of materials, the list inside of the executable, and the licences.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use yadokari_tests::{Executor, Libc, PATIENCE, Result, capture, command, run, workspace};

use super::shipped;

/// Names and versions of what cargo says is linked, without a build.
fn linked() -> Result<BTreeSet<String>> {
    let mut cargo = command(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    cargo.current_dir(workspace()).args(["tree", "--locked", "--package", "yadokari", "--prefix", "none"]);
    cargo.args(["--edges", "normal,no-proc-macro", "--target", &Libc::available().target(), "--format", "{p}"]);
    let said = capture(&mut cargo, PATIENCE)?.text("cargo tree")?;
    let name = |line: &str| -> Option<String> {
        let mut words = line.split(' ');
        Some(format!("{}@{}", words.next()?, words.next()?.strip_prefix('v')?))
    };
    Ok(said.lines().filter_map(name).collect())
}

fn bill() -> Result<Value> {
    let text = fs::read_to_string(Executor::build()?.rootfs().join("kaniko/executor.cdx.json")).unwrap();
    Ok(serde_json::from_str(&text).unwrap())
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

#[test]
fn the_executable_lists_the_packages_that_it_is_linked_from() -> Result<()> {
    let program = Executor::build()?.program();
    let info = auditable_info::audit_info_from_file(&program, auditable_info::Limits::default()).unwrap();
    let listed: BTreeSet<_> = info.packages.iter().map(|p| format!("{}@{}", p.name, p.version)).collect();
    assert_eq!(listed, linked()?);
    let roots: Vec<_> = info.packages.iter().filter(|package| package.root).map(|package| &*package.name).collect();
    assert_eq!(roots, ["yadokari"]);
    let root = info.packages.iter().find(|package| package.root).unwrap();
    let on: Vec<_> = root.dependencies.iter().map(|at| &*info.packages[*at].name).collect();
    assert!(["tokio", "yadokari-layers", "zstd"].iter().all(|name| on.contains(name)), "{on:?}");
    // Scanners look up in databases of crates.io what is of crates.io.
    let mut ours = Vec::new();
    for package in info.packages.iter().filter(|package| package.source.clone() != "crates.io".into()) {
        assert_eq!(String::from(package.source.clone()), "local");
        ours.push(&*package.name);
    }
    assert_eq!(ours, ["yadokari", "yadokari-layers", "yadokari-registry"]);
    Ok(())
}

#[test]
fn the_bill_of_materials_names_what_is_linked_and_nothing_else() -> Result<()> {
    let bill = bill()?;
    assert_eq!((text(&bill, "bomFormat"), text(&bill, "specVersion")), ("CycloneDX", "1.5"));
    let main = &bill["metadata"]["component"];
    let components: Vec<_> = elements(&bill["components"]).chain([main]).collect();
    let named: BTreeSet<_> = components.iter().map(|c| format!("{}@{}", text(c, "name"), text(c, "version"))).collect();
    let mut expected = linked()?;
    // What is linked and is no package.
    let beside: Vec<_> = named.difference(&expected).filter_map(|name| name.split('@').next()).collect();
    assert_eq!(beside.len(), 2, "{beside:?}");
    assert!(beside.contains(&"std") && (beside.contains(&"musl") || beside.contains(&"glibc")), "{beside:?}");
    expected.retain(|name| !named.contains(name));
    assert!(expected.is_empty(), "{expected:?}");

    let lock = fs::read_to_string(workspace().join("Cargo.lock")).unwrap();
    for component in components.iter().filter(|component| !component["purl"].is_null()) {
        let hash = text(&component["hashes"][0], "content");
        assert!(lock.contains(&format!("checksum = \"{hash}\"")), "{component}");
        assert!(text(&component["licenses"][0], "expression").len() > 2, "{component}");
    }
    let references: BTreeMap<&str, usize> =
        elements(&bill["dependencies"]).map(|d| (text(d, "ref"), elements(&d["dependsOn"]).count())).collect();
    assert!(components.iter().filter(|c| !c["purl"].is_null()).all(|c| references.contains_key(text(c, "purl"))));
    assert!(references[text(main, "bom-ref")] > 20, "{references:?}");
    Ok(())
}

#[test]
fn the_bill_of_materials_says_which_executable_it_is_about_and_what_made_it() -> Result<()> {
    let bill = bill()?;
    let said = run("sha256sum", [Executor::build()?.program()])?.stdout;
    let hashes = &bill["metadata"]["component"]["hashes"];
    assert_eq!(said.split(' ').next(), hashes[0]["content"].as_str());
    let tools: Vec<_> = elements(&bill["metadata"]["tools"]["components"]).map(|tool| text(tool, "version")).collect();
    assert!(tools.iter().any(|tool| tool.starts_with("rustc 1.")), "{tools:?}");
    assert!(tools.iter().all(|tool| !tool.is_empty()) && tools.len() == 3, "{tools:?}");
    // These would make another bill, and another image, each time.
    assert!(bill["serialNumber"].is_null() && bill["metadata"]["timestamp"].is_null());
    assert_eq!(shipped()?.materials, shipped()?.materials);
    Ok(())
}

#[test]
fn what_is_linked_has_its_licences_beside_the_executable() -> Result<()> {
    let directory = Executor::build()?.rootfs().join("kaniko");
    let licences = fs::read_to_string(directory.join("THIRD-PARTY-LICENSES")).unwrap();
    let ours = ["yadokari", "yadokari-layers", "yadokari-registry"];
    for package in linked()? {
        let (name, version) = package.split_once('@').unwrap();
        let is_stated = licences.contains(&format!("\n{name} {version}: "));
        assert_eq!(is_stated, !ours.contains(&name), "{package}");
    }
    // Of whom the licences want that their words are given, one of each kind, and C sources within packages.
    for words in ["Redistribution and use in source and binary forms", "Permission is hereby granted, free of charge"] {
        assert!(licences.contains(words), "{words}");
    }
    for of in ["Facebook", "Jason Evans", "Unicode, Inc."] {
        assert!(licences.contains(of), "{of}");
    }
    let own = fs::read_to_string(directory.join("LICENSE")).unwrap();
    assert_eq!(own, fs::read_to_string(workspace().join("LICENSE")).unwrap());
    Ok(())
}

#[test]
fn the_image_trusts_no_authority_of_the_machine_that_built_it() -> Result<()> {
    let file = Executor::build()?.rootfs().join("kaniko/ssl/certs/ca-certificates.crt");
    let known: Vec<_> =
        webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|certificate| certificate.to_vec()).collect();
    let bundle = fs::read_to_string(&file).unwrap();
    let certificates = bundle.split("-----BEGIN CERTIFICATE-----\n").skip(1);
    let decode = |certificate: &str| {
        let (text, rest) = certificate.split_once("-----END CERTIFICATE-----").unwrap();
        assert_eq!(rest, "\n");
        STANDARD.decode(text.replace('\n', "")).unwrap()
    };
    assert_eq!(certificates.map(decode).collect::<Vec<_>>(), known);
    let said = run("openssl", ["storeutl".as_ref(), "-noout".as_ref(), "-certs".as_ref(), file.as_os_str()])?.stdout;
    assert!(said.contains(&format!("Total found: {}\n", known.len())), "{said}");
    Ok(())
}
