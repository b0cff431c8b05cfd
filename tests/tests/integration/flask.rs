//! The main job, the Flask application of `fixtures/flask`, in the containers that CI systems give.

use std::fs;
use std::path::Path;
use std::time::Duration;

use yadokari_tests::{Base, Context, Image, Job, Registry, Request, Result, Variant, fixture, free_address, run};

use crate::site::{self, EPOCH, VOLUME, printed};

/// Each container, and the driver that is chosen there.
const PLACES: [Place; 3] = [
    ("docker", Variant::Docker, false, "in-place"),
    ("unconfined", Variant::Unconfined, true, "overlay"),
    ("userns", Variant::UserNamespace, true, "overlay"),
];

/// What pip makes different each time where nobody tells it the date: compiled files hold the time of their source, and
/// the list of what was installed holds their digests. Both under `/venv`.
fn is_pips_own(path: &Path) -> bool {
    path.starts_with("venv")
        && (path.extension().is_some_and(|extension| extension == "pyc") || path.ends_with("RECORD"))
}

/// The fixture, and beside its Dockerfile one whose first stage tells pip the date.
pub(crate) fn context() -> Result<Context> {
    let context = Context::new()?;
    let source = format!("{}/.", fixture("flask").display());
    run("cp", ["-a".as_ref(), source.as_ref(), context.path().as_os_str()])?;
    let text = fs::read_to_string(context.path().join("Dockerfile")).unwrap();
    let dated = text.replacen("WORKDIR /src\n", "WORKDIR /src\nARG SOURCE_DATE_EPOCH\n", 1);
    assert_ne!(text, dated);
    context.file("Dockerfile.dated", dated)
}

/// A container, and the driver that is chosen there.
type Place = (&'static str, Variant, bool, &'static str);

/// Builds in each place and says which images came of it.
fn build(registry: &Registry, context: &Context, dockerfile: &str) -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for (name, variant, volume, driver) in PLACES {
        let (image, work) = (format!("team/{}:{name}", dockerfile.to_lowercase()), Context::new()?);
        let mut job = site::job(registry, dockerfile, &image);
        let mut container = site::container(variant, context.path())?;
        if volume {
            container = container.volume(work.path(), VOLUME);
            job = job.args(["--work-dir", VOLUME]);
        }
        if dockerfile != "Dockerfile" {
            job = job.args(["--build-arg".to_owned(), format!("SOURCE_DATE_EPOCH={EPOCH}")]);
        }
        let output = container.run(job)?.ok(&image)?;
        assert!(printed(&output).contains(&format!("sandbox: {driver}")), "{name}: {output}");
        println!("{image} under {variant:?}: {:.1} s", output.elapsed.as_secs_f64());
        images.push(Image::pull(&registry.reference(&image))?);
    }
    Ok(images)
}

/// What the image's first page says.
pub(crate) fn answer(image: &Image) -> Result<String> {
    let address = free_address()?;
    let port = address.rsplit(':').next().unwrap_or_default();
    let mut live = image.container(Variant::Docker)?.env("PORT", port).open()?;
    let mut server = live.launch(Job::new(image.command()))?;
    server.wait_for("Running on")?;
    Ok(Request::get(&address, "/").send_until_answered(Duration::from_secs(30))?.text())
}

#[test]
fn everywhere_the_same_image_but_for_what_pip_makes_different() -> Result<()> {
    let registry = site::registry(&[Base::Python])?;
    let context = context()?;

    let dated = build(&registry, &context, "Dockerfile.dated")?;
    let listings = dated.iter().map(Image::listing).collect::<Result<Vec<_>>>()?;
    for (n, listing) in listings.iter().enumerate() {
        assert_eq!(listings[0].difference(listing), "", "{}", PLACES[n].0);
        assert_eq!(dated[0].manifest(), dated[n].manifest(), "{}", PLACES[n].0);
        let answer = answer(&dated[n])?;
        assert!(answer.contains("\"hello\":\"yadokari, the hermit crab\"") && answer.contains("1000"), "{answer}");
    }

    let without_pips_own = |image: &Image| -> Result<_> {
        let mut listing = image.listing()?;
        listing.0.retain(|path, _| !is_pips_own(path));
        Ok(listing)
    };
    let expected = without_pips_own(&dated[0])?;
    for (plain, place) in build(&registry, &context, "Dockerfile")?.iter().zip(PLACES) {
        assert_ne!(plain.listing()?.difference(&listings[0]), "", "{}", place.0);
        assert_eq!(without_pips_own(plain)?.difference(&expected), "", "{}", place.0);
    }
    Ok(())
}
