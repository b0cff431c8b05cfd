//! What calls Kaniko today, with nothing but the image changed: under Docker's default seccomp profile, against a registry
//! with TLS of an own authority that wants a token for everything.
//!
//! The commands are those of GitLab's page on Kaniko (versions 11 to 18), of tasks 0.1 and 0.6 of Tekton's catalog, and of
//! Shipwright's strategies `kaniko` and `kaniko-trivy`.

use std::fs;
use std::path::Path;

use yadokari_tests::{
    Base, Container, Context, Executor, Form, GuardedRegistry, Image, Job, LOGIN, Output, PROJECT, Result, Variant, run,
};

use crate::executor_image;
use crate::site::{self, printed};

/// How GitLab's runner finds a shell, to which it then gives the job's script.
const SHELL: &str = "for shell in /usr/local/bin/bash /usr/bin/bash /bin/bash /usr/local/bin/sh /usr/bin/sh /bin/sh \
                     /busybox/sh; do if [ -x $shell ]; then exec $shell; fi; done; echo no shell; exit 1";

/// Where a runner puts the project.
const CHECKOUT: &str = "/builds/group/project";

/// What the page calls the manual way of logging in.
const LOGIN_BY_FILE: &str = r#"mkdir -p /kaniko/.docker
echo "{\"auths\":{\"$CI_REGISTRY\":{\"username\":\"$CI_REGISTRY_USER\",\"password\":\"$CI_REGISTRY_PASSWORD\"}}}" > /kaniko/.docker/config.json
"#;

/// The same with the dependency proxy, by the shell's own means.
const LOGIN_WITH_PROXY: &str = r#"mkdir -p /kaniko/.docker
echo "{\"auths\":{\"${CI_REGISTRY}\":{\"auth\":\"$(printf "%s:%s" "${CI_REGISTRY_USER}" "${CI_REGISTRY_PASSWORD}" | base64 | tr -d '\n')\"},\"$(echo -n $CI_DEPENDENCY_PROXY_SERVER | awk -F[:] '{print $1}')\":{\"auth\":\"$(printf "%s:%s" ${CI_DEPENDENCY_PROXY_USER} "${CI_DEPENDENCY_PROXY_PASSWORD}" | base64 | tr -d '\n')\"}}}" > /kaniko/.docker/config.json
"#;

const BUILD: &str = r#"/kaniko/executor --context "${CI_PROJECT_DIR}" --dockerfile "${CI_PROJECT_DIR}/Dockerfile" --destination "${CI_REGISTRY_IMAGE}:${CI_COMMIT_TAG}"
"#;

/// A registry that holds a base in the project, and the debug image.
struct Site {
    registry: GuardedRegistry,
    image: Image,
    context: Context,
}

impl Site {
    fn make() -> Result<Self> {
        let open = site::registry(&[])?;
        open.hold_as(Base::Busybox, Form::Oci, &format!("{PROJECT}/base:1"))?;
        let image = executor_image::build(&open, "debug", Executor::build()?.debug_rootfs())?;
        let registry = GuardedRegistry::before(open)?;
        let dockerfile = format!(
            "FROM {}/{PROJECT}/base:1 AS build\nARG http_proxy\nCOPY app /app\nRUN echo \"built by $(id -u)\" > /app/built\n\
             FROM {}/{PROJECT}/base:1\nCOPY --from=build /app /srv\nRUN test \"$(cat /srv/built)\" = 'built by 0'\nCMD [\"sh\"]\n",
            registry.host(),
            registry.host()
        );
        let context = Context::new()?.file("Dockerfile", dockerfile)?.file("app/main", "hello\n")?;
        Ok(Self { registry, image, context })
    }

    fn container(&self) -> Result<Container> {
        Ok(self.registry.known_in(self.image.container(Variant::Docker)?))
    }

    /// Runs a script as GitLab's runner on Docker does: a shell of the image reads it, with the job's variables.
    fn gitlab(&self, script: &str) -> Result<Output> {
        let authority = self.registry.authority();
        let input =
            Context::new()?.file("script", format!("set -eo pipefail\nset +o noclobber\ncd {CHECKOUT}\n{script}"))?;
        let container = self.container()?.readonly_volume(self.context.path(), CHECKOUT);
        let container = container.readonly_volume(&authority, &format!("{CHECKOUT}.tmp/CI_SERVER_TLS_CA_FILE"));
        let host = self.registry.host();
        let image = format!("{host}/{PROJECT}");
        let job = Job::new(["sh", "-c", SHELL]).stdin(input.path().join("script"));
        let file = format!("{CHECKOUT}.tmp/CI_SERVER_TLS_CA_FILE");
        let job = [
            ("CI", "true"),
            ("GITLAB_CI", "true"),
            ("CI_PROJECT_DIR", CHECKOUT),
            ("CI_COMMIT_TAG", "v1.0"),
            ("CI_REGISTRY", &host),
            ("CI_REGISTRY_IMAGE", &image),
            ("CI_REGISTRY_USER", LOGIN.0),
            ("CI_REGISTRY_PASSWORD", LOGIN.1),
            ("CI_JOB_TOKEN", LOGIN.1),
            ("CI_DEPENDENCY_PROXY_SERVER", "gitlab.example:443"),
            ("CI_DEPENDENCY_PROXY_USER", LOGIN.0),
            ("CI_DEPENDENCY_PROXY_PASSWORD", LOGIN.1),
            ("CI_SERVER_TLS_CA_FILE", &file),
        ]
        .into_iter()
        .fold(job, |job, (name, value)| job.env(name, value));
        container.run(job)
    }

    /// The image that a pipeline made is whole, and what it should be; nobody asked for a token without the login.
    fn check(&self, tag: &str) -> Result<()> {
        let open = self.registry.open();
        assert_eq!(open.flaws(PROJECT, tag)?, Vec::<String>::new(), "{tag}");
        check(&Image::pull(&open.reference(&format!("{PROJECT}:{tag}")))?)?;
        let asked = self.registry.asked();
        assert!(!asked.is_empty() && asked.iter().all(|asked| asked.status == 200), "{asked:#?}");
        Ok(())
    }
}

fn check(image: &Image) -> Result<()> {
    let root = image.rootfs()?;
    assert_eq!(fs::read_to_string(root.join("srv/main")).unwrap(), "hello\n");
    assert_eq!(fs::read_to_string(root.join("srv/built")).unwrap(), "built by 0\n");
    Ok(())
}

/// The certificate as people paste it into a script.
fn certificate_in_the_script(authority: &Path) -> String {
    let text = fs::read_to_string(authority).unwrap();
    format!("echo \"{}\" >> /kaniko/ssl/certs/additional-ca-cert-bundle.crt\n", text.trim())
}

#[test]
fn gitlabs_page_on_kaniko() -> Result<()> {
    let site = Site::make()?;
    // The authority is nobody's: without it there is no build, and the error names the certificate.
    let refused = site.gitlab(BUILD)?;
    assert!(!refused.success() && printed(&refused).contains("certificate"), "{refused}");

    let certificate = certificate_in_the_script(&site.registry.authority());
    let file = "cat $CI_SERVER_TLS_CA_FILE >> /kaniko/ssl/certs/additional-ca-cert-bundle.crt\n";
    let proxies = BUILD.trim_end().to_owned()
        + " --build-arg http_proxy=$http_proxy --build-arg https_proxy=$https_proxy --build-arg no_proxy=$no_proxy\n";
    let cached = "/kaniko/executor --context $CI_PROJECT_DIR --dockerfile $CI_PROJECT_DIR/Dockerfile \
                  --destination $CI_REGISTRY_IMAGE:v1.0 --destination $CI_REGISTRY_IMAGE:latest --cache=true \
                  --cache-repo $CI_REGISTRY_IMAGE/cache --cache-ttl 2190h0m0s --compressed-caching=false \
                  --snapshotMode=redo --cleanup\n";
    let scripts = [
        ("the login is GitLab's own", format!("{file}{BUILD}")),
        ("a login by a file", format!("{LOGIN_BY_FILE}{certificate}{BUILD}")),
        ("with the dependency proxy", format!("{LOGIN_WITH_PROXY}{file}{BUILD}")),
        ("through a proxy", format!("{LOGIN_BY_FILE}{file}{proxies}")),
        ("two builds with a cache in a job", format!("{LOGIN_BY_FILE}{file}{cached}{cached}")),
    ];
    for (what, script) in scripts {
        let before = site.registry.open().mark()?;
        // The shell goes on with what is behind the build, and finds its programs.
        let output = site.gitlab(&format!("{script}test ! -e /srv && ls -A / | tr '\\n' ' '\n"));
        let output = output?.ok(what)?;
        assert!(output.stdout.contains(" bin builds busybox "), "{what}: {output}");
        assert!(!printed(&output).contains(LOGIN.1), "{what}: {output}");
        site.check("v1.0")?;
        assert!(site.registry.open().mark()? >= before);
        site.registry.open().forget(PROJECT, "v1.0")?;
    }
    Ok(())
}

#[test]
fn tekton_s_tasks() -> Result<()> {
    let site = Site::make()?;
    let source = "/workspace/source";
    let results = Context::new()?;
    let config = site.registry.docker_config()?;
    let work = Context::new()?;
    copy(site.context.path(), work.path())?;
    let container = || -> Result<Container> {
        let container = site.container()?.volume(work.path(), source).volume(results.path(), "/tekton/results");
        Ok(container.readonly_volume(site.registry.authority(), "/kaniko/ssl/certs/company.crt"))
    };
    // 0.6: arguments for the image's own entry point.
    let destination = format!("--destination={}/{PROJECT}:tekton", site.registry.host());
    let job = Job::new(site.image.command()).cwd(source).args([
        "--dockerfile=./Dockerfile",
        "--context=/workspace/source/./",
        &destination,
        "--digest-file=/tekton/results/IMAGE_DIGEST",
    ]);
    container()?.readonly_volume(config.path(), "/kaniko/.docker").run(job)?.ok("task 0.6")?;
    site.check("tekton")?;
    let digest = fs::read_to_string(results.path().join("IMAGE_DIGEST")).unwrap();
    assert_eq!(digest, site.registry.open().manifest(PROJECT, "tekton")?.unwrap().0);

    // 0.1: a login elsewhere, a layout to read the digest from, and an argument that is empty.
    let destination = format!("--destination={}/{PROJECT}:tekton1", site.registry.host());
    let job = Job::new([
        "/kaniko/executor",
        "",
        "--dockerfile=./Dockerfile",
        "--context=/workspace/source/./",
        &destination,
        "--oci-layout-path=/workspace/source/./image-digest",
    ]);
    let container = container()?.readonly_volume(config.path(), "/tekton/home/.docker");
    container.run(job.cwd(source).env("DOCKER_CONFIG", "/tekton/home/.docker"))?.ok("task 0.1")?;
    site.check("tekton1")?;
    check(&Image::from_layout(&work.path().join("image-digest"))?)
}

#[test]
fn shipwright_s_strategies() -> Result<()> {
    let site = Site::make()?;
    let source = "/workspace/source";
    let image = format!("{}/{PROJECT}:shipwright", site.registry.host());
    let config = site.registry.docker_config()?;
    let (output, layout) = (Context::new()?, Context::new()?);
    let container = || -> Result<Container> {
        let container = site.container()?.readonly_volume(site.context.path(), source).memory(1 << 30).cpus(1);
        let container = container.readonly_volume(config.path(), "/tekton/home/.docker");
        Ok(container.readonly_volume(site.registry.authority(), "/kaniko/ssl/certs/company.crt"))
    };
    let environment = |job: Job| {
        let job = job.cwd(source).env("HOME", "/tekton/home");
        job.env("AWS_ACCESS_KEY_ID", "NOT_SET").env("AWS_SECRET_KEY", "NOT_SET")
    };
    let job =
        Job::new(["/kaniko/executor", "--dockerfile", "Dockerfile", "--context", source, "--destination", &image]);
    let job = job.args(["--snapshot-mode", "redo", "--no-push", "--tar-path", "/workspace/output-image/image.tar"]);
    let job = environment(job.args(["--ignore-path", "/product_uuid"]));
    let run = container()?.volume(output.path(), "/workspace/output-image");
    run.run(job.env("DOCKER_CONFIG", "/tekton/home/.docker"))?.ok("kaniko")?;
    check(&Image::from_tarball(&output.path().join("image.tar"))?)?;

    let (context, destination) = (format!("--context={source}"), format!("--destination={image}"));
    let job = environment(Job::new([
        "/kaniko/executor",
        "--skip-tls-verify=true",
        "--dockerfile=Dockerfile",
        &context,
        &destination,
        "--ignore-path=/product_uuid",
        "--oci-layout-path=/kaniko/oci-image-layout",
        "--snapshotMode=redo",
        "--no-push",
        "--tarPath",
        "/kaniko/tar-image/image.tar",
    ]));
    let run = container()?.volume(layout.path(), "/kaniko/oci-image-layout").volume(output.path(), "/kaniko/tar-image");
    run.run(job)?.ok("kaniko-trivy")?;
    check(&Image::from_tarball(&output.path().join("image.tar"))?)?;
    check(&Image::from_layout(layout.path())?)?;
    assert_eq!(site.registry.open().tags(PROJECT)?, Vec::<String>::new());
    Ok(())
}

/// Copies a directory's content.
fn copy(from: &Path, to: &Path) -> Result<()> {
    run("cp", ["-a".as_ref(), from.join(".").as_os_str(), to.as_os_str()]).map(drop)
}
