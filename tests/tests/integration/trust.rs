//! Commands trust a company's authority, and the image does not know of it.

use yadokari_tests::{Base, Context, GuardedRegistry, Image, Result, Variant};

use crate::site::{self, VOLUME};

const ASK: &str = "import ssl, sys, urllib.error, urllib.request
try:
    urllib.request.urlopen(sys.argv[1])
except urllib.error.HTTPError as error:
    sys.exit(error.code != 404)";

#[test]
fn commands_trust_a_bundle_that_no_image_holds() -> Result<()> {
    let company = GuardedRegistry::before(site::registry(&[])?)?;
    let registry = site::registry(&[Base::Python])?;
    let dockerfile = format!(
        "FROM python:3.11-slim\nCOPY ask.py /tmp/\nRUN python /tmp/ask.py {}\n\
         RUN test \"$(wc -l < $CURL_CA_BUNDLE)\" -gt 1000 && apt-config dump Acquire::https::CAInfo | grep -F $SSL_CERT_FILE\n\
         RUN echo made > /made; if [ \"$(id -u)\" != 0 ]; then exit 1; fi\n",
        company.realm()
    );
    let context = Context::new()?.file("Dockerfile", dockerfile)?.file("ask.py", ASK)?;
    for (variant, driver) in
        [(Variant::Docker, "in-place"), (Variant::Unconfined, "overlay"), (Variant::Unconfined, "flat")]
    {
        let container = || -> Result<_> {
            let container = company.known_in(site::container(variant, context.path())?);
            let volume = Context::new()?;
            let container =
                container.readonly_volume(company.authority(), "/company.crt").volume(volume.path(), VOLUME);
            Ok((container, volume))
        };
        let job = |name: &str| {
            let job = site::job(&registry, "Dockerfile", name).args(["--driver", driver]);
            if driver == "overlay" { job.args(["--work-dir", VOLUME]) } else { job }
        };
        if driver == "in-place" {
            let refused = container()?.0.run(job("trust/app:none"))?;
            assert!(!refused.success() && refused.stderr.contains("CERTIFICATE_VERIFY_FAILED"), "{refused}");
        }
        let (trusting, _volume) = container()?;
        trusting.run(job("trust/app:1").args(["--run-ca-bundle", "/company.crt"]))?.ok(driver)?;
        let image = Image::pull(&registry.reference("trust/app:1"))?;
        let text = format!("{}{}", image.config(), image.manifest());
        assert!(
            !text.contains("yadokari/") && !text.contains("CA_BUNDLE=") && image.env("SSL_CERT_FILE").is_none(),
            "{text}"
        );
        let layers = image.manifest()["layers"].as_array().unwrap().len();
        let paths: Vec<Vec<String>> = (0..layers).map(|layer| image.layer_paths(layer)).collect::<Result<_>>()?;
        assert_eq!(paths.last().unwrap(), &["made"], "{driver}");
        let ours = paths.iter().flatten().find(|path| path.contains("yadokari"));
        assert_eq!(ours, None, "{driver}");
    }
    Ok(())
}
