use std::fs;
use std::time::Duration;

use yadokari_tests::{Base, Container, Job, Live, Result, Signal, Variant};

fn busybox(variant: Variant) -> Result<Container> {
    Ok(Container::new(Base::Busybox.rootfs()?, variant))
}

/// A line of `/proc/self/status`.
fn status(live: &mut Live, key: &str) -> Result<String> {
    live.exec(["sed", "-n", &format!("s/^{key}:[[:space:]]*//p"), "/proc/self/status"])?.text(key)
}

#[test]
fn each_variant_has_its_user_capabilities_and_seccomp() -> Result<()> {
    let default = "00000000a80425fb";
    let none = "0000000000000000";
    let expected = [
        (Variant::Docker, "0", default, "2", "0"),
        (Variant::Unconfined, "0", default, "0", "0"),
        (Variant::UserNamespace, "0", default, "0", "0"),
        (Variant::Restricted, "1000", none, "2", "1"),
    ];
    for (variant, uid, capabilities, seccomp, no_new_privileges) in expected {
        let mut live = busybox(variant)?.start()?;
        assert_eq!(live.exec(["id", "-u"])?.text("id")?, uid, "{variant:?}");
        assert_eq!(status(&mut live, "CapEff")?, capabilities, "{variant:?}");
        assert_eq!(status(&mut live, "CapBnd")?, capabilities, "{variant:?}");
        assert_eq!(status(&mut live, "Seccomp")?, seccomp, "{variant:?}");
        assert_eq!(status(&mut live, "NoNewPrivs")?, no_new_privileges, "{variant:?}");
    }
    Ok(())
}

#[test]
fn only_without_seccomp_can_a_namespace_be_made() -> Result<()> {
    for variant in Variant::ALL {
        let unshared = busybox(variant)?.run(["unshare", "-U", "true"])?;
        let expected = matches!(variant, Variant::Unconfined | Variant::UserNamespace);
        assert_eq!(unshared.success(), expected, "{variant:?}: {unshared}");
    }
    Ok(())
}

#[test]
fn only_the_user_namespace_maps_ids() -> Result<()> {
    for variant in Variant::ALL {
        let map = busybox(variant)?.run(["cat", "/proc/self/uid_map"])?.text("cat")?;
        let outside = map.split_whitespace().nth(1).unwrap().to_owned();
        assert_eq!(outside, if variant == Variant::UserNamespace { "100000" } else { "0" }, "{variant:?}");
    }
    Ok(())
}

#[test]
fn nothing_can_be_mounted_under_dockers_defaults() -> Result<()> {
    let mounted = busybox(Variant::Docker)?.run(["mount", "-t", "tmpfs", "none", "/tmp"])?;
    assert!(!mounted.success(), "{mounted}");
    Ok(())
}

#[test]
fn a_second_command_finds_the_files_of_the_first_and_the_next_container_does_not() -> Result<()> {
    for variant in [Variant::Docker, Variant::UserNamespace] {
        let mut live = busybox(variant)?.start()?;
        live.exec(Job::shell("echo one > /tmp/file"))?.ok("sh")?;
        assert_eq!(live.exec(["cat", "/tmp/file"])?.text("cat")?, "one");
        assert_eq!(fs::read_to_string(live.path("/tmp/file")).unwrap(), "one\n");
        assert!(live.written().join("tmp/file").exists());
        let other = busybox(variant)?.run(["cat", "/tmp/file"])?;
        assert_eq!(other.code(), 1, "{other}");
    }
    Ok(())
}

#[test]
fn first_processes_in_turn_share_the_root_filesystem() -> Result<()> {
    let mut live = busybox(Variant::Docker)?.open()?;
    live.run(Job::shell("echo one > /file; exit 7")).map(|output| assert_eq!(output.code(), 7))?;
    assert_eq!(live.run(["cat", "/file"])?.text("cat")?, "one");
    Ok(())
}

#[test]
fn volumes_are_written_through_and_read_only_ones_are_not() -> Result<()> {
    for variant in Variant::ALL {
        let [shared, fixed] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        fs::write(fixed.path().join("in"), "content").unwrap();
        let container = busybox(variant)?.volume(shared.path(), "/shared").readonly_volume(fixed.path(), "/fixed");
        let mut live = container.open()?;
        live.run(["cp", "/fixed/in", "/shared/out"])?.ok("cp")?;
        assert_eq!(fs::read_to_string(live.path("/shared/out")).unwrap(), "content", "{variant:?}");
        assert!(!live.run(["touch", "/fixed/new"])?.success(), "{variant:?}");
    }
    Ok(())
}

#[test]
fn environment_directory_files_and_input_arrive() -> Result<()> {
    let input = tempfile::NamedTempFile::new().unwrap();
    fs::write(input.path(), "input").unwrap();
    let container = busybox(Variant::Docker)?.env("A", "1").env("B", "2").cwd("/tmp").file("/etc/extra", "extra");
    let mut live = container.start()?;
    let job = Job::shell("echo $A$B $PWD $(cat /etc/extra) $(cat)").env("B", "3").stdin(input.path());
    assert_eq!(live.exec(job)?.text("sh")?, "13 /tmp extra input");
    let resolver = live.exec(["cat", "/etc/resolv.conf"])?.text("cat")?;
    assert_eq!(resolver, fs::read_to_string("/etc/resolv.conf").unwrap().trim());
    Ok(())
}

#[test]
fn a_signal_reaches_the_process_that_was_started() -> Result<()> {
    let line = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let mut live = busybox(Variant::Docker)?.start()?;
    let mut process = live.spawn(Job::shell(line).limit(Duration::from_secs(20)))?;
    process.wait_for("ready")?;
    process.signal(Signal::TERM)?;
    let output = process.wait()?;
    assert_eq!((output.code(), output.stdout.contains("caught")), (9, true), "{output}");
    Ok(())
}

#[test]
fn a_command_that_hangs_is_ended_with_its_container() -> Result<()> {
    let hang = Job::new(["sleep", "6173"]).limit(Duration::from_millis(500));
    assert!(busybox(Variant::Docker)?.run(hang).is_err());
    let running = fs::read_dir("/proc").unwrap().flatten().filter_map(|p| fs::read(p.path().join("cmdline")).ok());
    assert_eq!(running.filter(|line| line.ends_with(b"6173\0")).count(), 0);
    Ok(())
}

#[test]
fn memory_is_limited() -> Result<()> {
    let eat = "head -c 100000000 /dev/zero | tail -c 100000000 | wc -c";
    let free = busybox(Variant::Docker)?.run(Job::shell(eat))?;
    assert_eq!(free.text("wc")?, "100000000");
    let limited = busybox(Variant::Docker)?.memory(32 << 20).run(Job::shell(eat))?;
    assert_ne!(limited.stdout.trim(), "100000000", "{limited}");
    Ok(())
}

#[test]
fn processors_are_limited_and_the_limit_can_be_read() -> Result<()> {
    let read = "cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null | cut -d ' ' -f 1";
    let output = busybox(Variant::Docker)?.cpus(3).run(Job::shell(read))?;
    assert_eq!(output.text("cat")?, "300000");
    Ok(())
}
