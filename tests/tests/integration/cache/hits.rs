//! What is found in the cache, and what then is neither executed nor pulled.

use yadokari_tests::{Base, Image, Result};

use super::{Bench, CHANCE};

/// A stage on a base of its own whose RUN gives something else each time, and a last stage that takes it.
fn two_stages() -> String {
    format!(
        "FROM files:250 AS made\nRUN {CHANCE} > /made\nFROM busybox\nCOPY --from=made /made /taken\nCOPY file /file\nENV X=y\n"
    )
}

#[test]
fn a_changed_file_of_the_last_stage_is_one_layer_and_pulls_nothing() -> Result<()> {
    let mut bench = Bench::new(&[Base::Busybox, Base::Files(250)])?;
    bench.write("file", "one");
    bench.build(&two_stages(), "last/app:1", &[])?;
    let before = bench.layers("last/app:1")?;
    bench.write("file", "two");
    let build = bench.build(&two_stages(), "last/app:1", &[])?;
    let now = bench.layers("last/app:1")?;
    assert_eq!(now[..2], before[..2], "{}", build.output);
    assert_eq!(build.pushed_of(&now), now[2..], "{}", build.traffic.lines());
    build.pulled_none_of(&[now.clone(), bench.layers("library/files:250")?].concat());
    assert!(!build.output.stderr.contains("sandbox: "), "{}", build.output);
    let image = Image::pull(&bench.registry.reference("last/app:1"))?;
    assert_eq!(std::fs::read_to_string(image.rootfs()?.join("file")).unwrap(), "two");
    assert_eq!(image.env("X"), Some("y"));
    Ok(())
}

#[test]
fn a_copy_from_a_stage_hits_though_the_records_of_the_stage_are_gone() -> Result<()> {
    let mut bench = Bench::new(&[Base::Busybox, Base::Files(250)])?;
    bench.write("file", "one");
    // Where only the stage is built, all records are its own.
    bench.build(&two_stages(), "gone/app:stage", &["--target=made"])?;
    let of_stage = bench.registry.tags("gone/app/cache")?;
    bench.build(&two_stages(), "gone/app:1", &[])?;
    let before = bench.layers("gone/app:1")?;
    let mut count = 0;
    for tag in of_stage.iter().filter(|tag| !tag.starts_with("index-")) {
        // Tags of one manifest go together.
        if bench.registry.manifest("gone/app/cache", tag)?.is_some() {
            bench.registry.forget("gone/app/cache", tag)?;
            count += 1;
        }
    }
    assert!(count > 0, "{of_stage:?}");
    bench.write("file", "two");
    let build = bench.build(&two_stages(), "gone/app:1", &[])?;
    let now = bench.layers("gone/app:1")?;
    assert_eq!(now[..2], before[..2], "{}", build.output);
    assert_ne!(now[2], before[2], "{}", build.output);
    build.pulled_none_of(&bench.layers("library/files:250")?);
    assert!(!build.output.stderr.contains("sandbox: "), "{}", build.output);
    Ok(())
}

#[test]
fn a_miss_in_the_middle_does_not_disable_the_hits_behind_it() -> Result<()> {
    let mut bench = Bench::new(&[Base::Busybox])?;
    bench.write("file", "one");
    let runs: String = (1..=4).map(|n| format!("RUN {CHANCE} > /made{n}\n")).collect();
    let text = format!("FROM busybox\n{runs}COPY file /file\n");
    bench.build(&text, "middle/app:1", &[])?;
    let before = bench.layers("middle/app:1")?;
    let mut forgotten = 0;
    for tag in bench.registry.tags("middle/app/cache")? {
        // The base, four RUNs and the COPY: the third RUN's layer is alone in its record.
        let Some((_, record)) = bench.registry.manifest("middle/app/cache", &tag)? else { continue };
        let record = record.to_string();
        let is_others = before.iter().enumerate().any(|(n, layer)| n != 3 && record.contains(layer.as_str()));
        if record.contains(before[3].as_str()) && !is_others {
            bench.registry.forget("middle/app/cache", &tag)?;
            forgotten += 1;
        }
    }
    assert!(forgotten > 0, "no record of {}", before[3]);
    bench.write("file", "two");
    let build = bench.build(&text, "middle/app:1", &[])?;
    let now = bench.layers("middle/app:1")?;
    let same: Vec<bool> = before.iter().zip(&now).map(|(before, now)| before == now).collect();
    assert_eq!(same, [true, true, true, false, true, false], "{}", build.output);
    Ok(())
}

#[test]
fn a_rebuilt_stage_of_the_same_content_lets_what_follows_hit() -> Result<()> {
    let mut bench = Bench::new(&[Base::Busybox])?;
    let text = |comment: &str| {
        format!(
            "FROM busybox AS tool\nRUN echo same > /out # {comment}\nFROM busybox\nCOPY --from=tool /out /in/\n\
             RUN {CHANCE} > /made\n"
        )
    };
    // Without a SOURCE_DATE_EPOCH the file has another time, which no key knows.
    for (name, variables) in [("content/dated:1", &[][..]), ("content/plain:1", &[("SOURCE_DATE_EPOCH", "")])] {
        bench.build_with(&text("one"), name, &[], variables)?;
        let before = bench.layers(name)?;
        let build = bench.build_with(&text("two"), name, &[], variables)?;
        assert_eq!(bench.layers(name)?, before, "{name}: {}", build.output);
        // A content of its own is another matter.
        let other = text("three").replace("echo same", "echo other");
        bench.build_with(&other, name, &[], variables)?;
        assert_ne!(bench.layers(name)?, before, "{name}");
    }
    Ok(())
}

#[test]
fn a_copy_on_a_base_that_the_cache_knows_pulls_nothing_of_it() -> Result<()> {
    let mut bench = Bench::new(&[Base::Busybox, Base::Files(250)])?;
    bench.write("file", "one");
    let cache = format!("--cache-repo={}", bench.registry.reference("known/cache"));
    bench.build("FROM files:250\nCOPY file /srv/d00000/\n", "known/one:1", &[&cache])?;
    let base = bench.layers("library/files:250")?;
    // Owners by name and links of the base are looked up.
    let text =
        "FROM files:250\nUSER daemon\nWORKDIR /srv/d00001\nCOPY --chown=nobody file .\nCOPY file /usr/bin/env/../x/\n";
    let build = bench.build(text, "known/two:1", &[&cache])?;
    build.pulled_none_of(&base);
    assert!(!build.output.stderr.contains("sandbox: "), "{}", build.output);
    let plain = bench.build(text, "known/plain:1", &["--cache=false"])?;
    assert_eq!(bench.digest("known/two:1")?, bench.digest("known/plain:1")?, "{}", plain.output);
    // Without the cache it had to come.
    let pulled = plain.traffic.downloads();
    assert!(pulled.iter().any(|(_, digest, _)| base.contains(digest)), "{}", plain.traffic.lines());
    Ok(())
}
