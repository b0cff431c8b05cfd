//! A cache whose files were deleted, cut or mixed up by hand: the build is as if there were none, and says so.
//!
//! The cache and what is pushed are in two registries. One registry keeps a blob once for all its repositories, and would
//! hand out the damaged one as a part of the image, too.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use yadokari_tests::{Base, Context, Executor, Image, Live, Output, Registry, Result, Variant};

use super::{layers, warnings};
use crate::site;

/// What is damaged: all files of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The layers that the first build made.
    Layers,
    /// What else the cache keeps in blobs: what layers and images say.
    Small,
    /// The records themselves.
    Manifests,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    /// None, to see that all would be well.
    None,
    Deleted,
    Cut,
    /// Each has the content of another one.
    Swapped,
    /// One byte is another one.
    Flipped,
}

/// What the second build needs the cache for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// A layer has to be unpacked for a RUN that comes after it.
    Unpacked,
    /// It is only pushed.
    Pushed,
    /// Nothing changed, but the image goes where it never was.
    Elsewhere,
}

const PARTS: [Part; 3] = [Part::Layers, Part::Small, Part::Manifests];
const DAMAGES: [Damage; 5] = [Damage::None, Damage::Deleted, Damage::Cut, Damage::Swapped, Damage::Flipped];
const NEEDS: [Need; 3] = [Need::Unpacked, Need::Pushed, Need::Elsewhere];

/// Whether a build must notice: it reads what is damaged, and can tell it from what was never there.
fn notices(part: Part, damage: Damage) -> bool {
    // A registry says of a record that it lost the same as of one that it never had.
    damage != Damage::None && (part, damage) != (Part::Manifests, Damage::Deleted)
}

/// The others are like one of these: without damage, and where the registry will not hand out what does not parse.
fn is_worth_a_case(part: Part, damage: Damage) -> bool {
    match damage {
        Damage::None => part == Part::Layers,
        Damage::Flipped => part != Part::Manifests,
        _ => true,
    }
}

/// All paths have the case's number, so that no two cases have a blob in common but for the base's.
fn dockerfile(need: Need) -> String {
    let last = if need == Need::Unpacked { "RUN cat /ran-$CASE /copied-$CASE > /after-$CASE\n" } else { "" };
    format!(
        "FROM busybox\nARG CASE\nRUN echo ran $CASE > /ran-$CASE\nRUN echo also $CASE > /also-$CASE\n\
         COPY file /copied-$CASE\n{last}"
    )
}

struct Site {
    /// Holds the cache.
    cache: Registry,
    /// Has the base, and gets the images.
    images: Registry,
    context: Context,
    live: Live,
}

impl Site {
    fn new() -> Result<Self> {
        let (cache, images, context) = (site::registry(&[])?, site::registry(&[Base::Busybox])?, Context::new()?);
        let live = site::container(Variant::Docker, context.path())?.start()?;
        Ok(Self { cache, images, context, live })
    }

    /// Builds case `number` to a destination.
    fn build(&mut self, number: usize, destination: &str, words: &[&str]) -> Result<Output> {
        let host = self.cache.host().to_owned();
        let fixed = ["--destination", destination, "--insecure-registry", &host];
        let words = fixed.iter().chain(words).map(|word| (*word).to_owned());
        let words = words.chain([format!("--build-arg=CASE={number}")]);
        let job = Executor::job(&self.images).env("SOURCE_DATE_EPOCH", site::EPOCH);
        self.live.exec(job.args(words))?.ok(&format!("case {number}"))
    }

    /// What is wrong with one case; empty if nothing is.
    fn case(&mut self, number: usize, (part, damage, need): (Part, Damage, Need)) -> Result<Vec<String>> {
        let write = |name: &str, content: &str| fs::write(self.context.path().join(name), content).unwrap();
        write("Dockerfile", &dockerfile(need));
        write("file", "one");
        let repository = format!("damaged/c{number}");
        let place = format!("--cache-repo={}", self.cache.reference(&repository));
        let cached = ["--cache=true", &*place];
        let first = self.cache.reference(&format!("first/c{number}:1"));
        let mark = self.cache.mark()?;
        self.build(number, &first, &cached)?;
        let uploads: BTreeSet<_> = self.cache.traffic(mark)?.uploads().into_iter().collect();
        let made: BTreeSet<_> = layers(&self.cache, &format!("first/c{number}:1"))?.into_iter().skip(1).collect();
        let victims: Vec<String> = match part {
            Part::Layers => made.into_iter().collect(),
            Part::Small => {
                let own = uploads.into_iter().filter(|(to, _)| *to == repository).map(|(_, digest)| digest);
                own.filter(|digest| !made.contains(digest)).collect()
            }
            Part::Manifests => {
                let tags = self.cache.tags(&repository)?.into_iter();
                let digests = tags.map(|tag| Ok(self.cache.manifest(&repository, &tag)?.unwrap_or_default().0));
                digests.collect::<Result<BTreeSet<_>>>()?.into_iter().collect()
            }
        };
        if victims.len() < 2 {
            return Ok(vec![format!("nothing to damage: {victims:?}")]);
        }
        let tags = self.cache.tags(&repository)?;
        let damaged = Damaged::new(victims.iter().map(|digest| self.cache.blob_file(digest)).collect(), damage);
        if need != Need::Elsewhere {
            fs::write(self.context.path().join("file"), "two").unwrap();
        }
        let second = format!("second/c{number}");
        let output = self.build(number, &self.images.reference(&format!("{second}:1")), &cached)?;
        drop(damaged);
        let plain = format!("plain/c{number}");
        self.build(number, &self.images.reference(&format!("{plain}:1")), &[])?;

        let digest =
            |name: &str| Ok::<_, yadokari_tests::Error>(self.images.manifest(name, "1")?.unwrap_or_default().0);
        let mut wrong = self.images.flaws(&second, "1")?;
        if digest(&second)? != digest(&plain)? {
            wrong.push("another image than without the cache".into());
        }
        let said = warnings(&output);
        let names = |line: &String| victims.iter().chain(&tags).any(|name| line.contains(name.as_str()));
        match notices(part, damage) {
            true if !said.iter().any(names) => wrong.push(format!("no warning names what is damaged: {said:?}")),
            false if damage == Damage::None && !said.is_empty() => {
                wrong.push(format!("said without a reason: {said:?}"))
            }
            _ => {}
        }
        Ok(wrong.into_iter().map(|line| format!("{line}\n{output}")).collect())
    }
}

/// Damaged files, whole again when the value is dropped: other cases have some of them in common.
struct Damaged(Vec<(PathBuf, Vec<u8>)>);

impl Damaged {
    fn new(files: Vec<PathBuf>, damage: Damage) -> Self {
        let whole: Vec<_> = files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect();
        for (n, (file, content)) in whole.iter().enumerate() {
            let mut bytes = content.clone();
            match damage {
                Damage::None => {}
                Damage::Deleted => fs::remove_file(file).unwrap(),
                Damage::Cut => fs::write(file, &content[..content.len() / 2]).unwrap(),
                Damage::Swapped => fs::write(file, &whole[(n + 1) % whole.len()].1).unwrap(),
                Damage::Flipped => {
                    bytes[content.len() / 2] ^= 1;
                    fs::write(file, bytes).unwrap();
                }
            }
        }
        Self(whole)
    }
}

impl Drop for Damaged {
    fn drop(&mut self) {
        for (file, content) in &self.0 {
            fs::write(file, content).unwrap();
        }
    }
}

#[test]
fn whatever_is_damaged_in_the_cache_the_image_is_right_and_the_log_says_what_was_ignored() -> Result<()> {
    let mut site = Site::new()?;
    let mut wrong = Vec::new();
    let cases = PARTS
        .iter()
        .flat_map(|part| DAMAGES.iter().flat_map(move |damage| NEEDS.iter().map(move |need| (*part, *damage, *need))));
    for (number, case) in cases.enumerate().filter(|(_, (part, damage, _))| is_worth_a_case(*part, *damage)) {
        match site.case(number, case) {
            Ok(found) => wrong.extend(found.into_iter().map(|line| format!("{case:?}: {line}"))),
            Err(error) => wrong.push(format!("{case:?}: {error}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    // One of the images, as others see it: the layers were damaged, and a RUN needed them.
    let number = DAMAGES.iter().position(|damage| *damage == Damage::Flipped).unwrap() * NEEDS.len();
    let image = Image::pull(&site.images.reference(&format!("second/c{number}:1")))?;
    let rootfs = image.rootfs()?;
    for (path, content) in
        [("ran", format!("ran {number}\n")), ("copied", "two".into()), ("after", format!("ran {number}\ntwo"))]
    {
        assert_eq!(fs::read_to_string(rootfs.join(format!("{path}-{number}"))).unwrap(), content);
    }
    Ok(())
}
