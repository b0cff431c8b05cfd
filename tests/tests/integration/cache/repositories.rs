//! One layer, many repositories of one registry: its bytes go up once.

use std::collections::BTreeMap;

use yadokari_tests::{Base, Result};

use super::{Bench, CHANCE};

#[test]
fn no_layer_goes_up_twice_into_the_repositories_of_one_registry() -> Result<()> {
    let mut bench = Bench::new(&[Base::Busybox, Base::Files(250)])?;
    bench.write("file", "one");
    let text = format!(
        "FROM files:250 AS made\nRUN {CHANCE} > /made\nFROM busybox\nRUN {CHANCE} > /own\nCOPY --from=made /made /taken\n\
         COPY file /file\n"
    );
    let cache = format!("--cache-repo={}", bench.registry.reference("beside/cache"));
    let second = format!("--destination={}", bench.registry.reference("mounts/second:1"));
    let mut count: BTreeMap<String, u32> = BTreeMap::new();
    // From nothing, to two repositories; unchanged, to a third one; and with a changed file.
    for (content, name, words) in [
        ("one", "mounts/first:1", &[&*cache, &*second][..]),
        ("one", "mounts/third:1", &[&cache]),
        ("two", "mounts/fourth:1", &[&cache]),
    ] {
        bench.write("file", content);
        let build = bench.build(&text, name, words)?;
        for (_, digest) in build.traffic.uploads() {
            *count.entry(digest).or_default() += 1;
        }
        assert!(build.traffic.mounts().iter().any(|(to, _)| name.starts_with(to)), "{}", build.traffic.lines());
    }
    let names = ["mounts/first", "mounts/second", "mounts/third", "mounts/fourth"];
    let layers = names.iter().map(|name| bench.layers(&format!("{name}:1"))).collect::<Result<Vec<_>>>()?.concat();
    let twice: Vec<_> = count.iter().filter(|(digest, times)| **times > 1 && layers.contains(digest)).collect();
    assert!(twice.is_empty(), "{twice:?}");
    // Of the base nothing went up at all: it is mounted from where it came from.
    for digest in [bench.layers("library/busybox:latest")?, bench.layers("library/files:250")?].concat() {
        assert!(!count.contains_key(&digest), "{digest}");
    }
    for name in names {
        assert_eq!(bench.registry.flaws(name, "1")?, [""; 0], "{name}");
        let layers = bench.layers(&format!("{name}:1"))?;
        assert_eq!(layers.iter().filter(|layer| count.contains_key(*layer)).count(), layers.len() - 1, "{name}");
    }
    Ok(())
}
