use yadokari_tests::{Executor, Libc, Result, Variant};

#[test]
fn the_executor_is_static_with_either_libc_and_runs_in_an_empty_image() -> Result<()> {
    for libc in [Libc::Musl, Libc::Gnu].into_iter().filter(|libc| libc.obtain()) {
        let executor = Executor::build_with(libc)?;
        for variant in Variant::ALL {
            executor.container(variant).run(["/kaniko/executor", "version"])?.ok("/kaniko/executor version")?;
        }
        let shell = executor.debug_container(Variant::Docker).start()?.exec(["sh", "-c", "pwd; which executor"])?;
        assert_eq!(shell.text("sh")?, "/workspace\n/kaniko/executor");
    }
    Ok(())
}
