//! Schedules of stages that only say when they are worked on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::*;

/// How long what must happen may take, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(200);

/// A stage: the one that it is based on, and for each of its steps those that it takes files from.
#[derive(Debug, Clone, Default)]
struct Stage {
    base: Option<usize>,
    steps: Vec<Vec<usize>>,
}

/// Works on all stages. `step` is told of each step when what it takes is there, and says whether it fails. Gives how it ended,
/// and how many jobs there were at once.
fn work(
    stages: &[Stage],
    jobs: usize,
    interrupt: &Interrupt,
    step: &(dyn Fn(&Job<'_>, usize, usize) -> Result<(), Error> + Sync),
) -> (Result<(), Error>, usize) {
    let nodes = stages.iter().enumerate().map(|(number, stage)| ((0, number), stage.base.map(|base| (0, base))));
    let schedule = Schedule::new(NonZeroUsize::new(jobs).unwrap(), nodes, interrupt);
    let (working, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let act = |job: &Job<'_>, number: usize| {
        for (at, taken) in stages[number].steps.iter().enumerate() {
            job.check()?;
            job.wait_for(taken)?;
            most.fetch_max(working.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let done = step(job, number, at);
            working.fetch_sub(1, Ordering::SeqCst);
            done?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        while let Some(job) = schedule.begin() {
            scope.spawn(move || {
                let ended = act(&job, job.node().1);
                job.end(ended);
            });
        }
    });
    (schedule.end(), most.into_inner())
}

/// Fails the test where `act` does not end.
fn in_time(act: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        act();
        _ = done.send(());
    });
    match ended.recv_timeout(PATIENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("nobody can go on"),
        _ => thread.join().unwrap(),
    }
}

fn independent(count: usize) -> Vec<Stage> {
    vec![Stage { base: None, steps: vec![Vec::new()] }; count]
}

fn failed(text: &str) -> Error {
    Error::Run { text: text.into(), code: 1 }
}

fn stale() -> Error {
    Error::Stale { layer: yadokari_layers::Digest::of("layer") }
}

/// Waits until somebody ends what is done here.
fn until_stopped(interrupt: &Interrupt) -> Error {
    loop {
        if let Err(error) = interrupt.check() {
            return error;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Stages with every kind of need, each of stages before it.
fn any_stages(seed: u64) -> Vec<Stage> {
    let mut state = seed;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit.max(1)
    };
    let mut stages = Vec::new();
    for number in 0..2 + below(9) {
        let base = (number > 0 && below(3) == 0).then(|| below(number));
        let mut steps = Vec::new();
        for _ in 0..below(4) {
            let taken = if number == 0 { 0 } else { below(3) };
            steps.push((0..taken).map(|_| below(number)).collect());
        }
        stages.push(Stage { base, steps });
    }
    stages
}

#[test]
fn with_one_job_the_order_is_that_of_the_file() {
    in_time(|| {
        for seed in 0..200 {
            let stages = any_stages(seed);
            let done = Mutex::new(Vec::new());
            let (ended, _) = work(&stages, 1, &Interrupt::default(), &|_, stage, step| {
                done.lock().unwrap().push((stage, step));
                Ok(())
            });
            ended.unwrap();
            let all =
                stages.iter().enumerate().flat_map(|(n, stage)| (0..stage.steps.len()).map(move |step| (n, step)));
            assert_eq!(done.into_inner().unwrap(), all.collect::<Vec<_>>(), "{stages:?}");
        }
    });
}

#[test]
fn no_needs_and_no_number_of_jobs_make_everybody_wait() {
    in_time(|| {
        for seed in 0..150 {
            let stages = any_stages(seed);
            for jobs in 1..=4 {
                let done: Vec<AtomicUsize> = stages.iter().map(|_| AtomicUsize::new(0)).collect();
                let is_done = |stage: usize| done[stage].load(Ordering::SeqCst) == stages[stage].steps.len();
                let (ended, most) = work(&stages, jobs, &Interrupt::default(), &|_, number, step| {
                    let Stage { base, steps } = &stages[number];
                    assert!(base.iter().chain(&steps[step]).all(|needed| is_done(*needed)), "{number} {stages:?}");
                    std::thread::yield_now();
                    assert_eq!(done[number].fetch_add(1, Ordering::SeqCst), step);
                    Ok(())
                });
                ended.unwrap();
                assert!((0..stages.len()).all(is_done) && most <= jobs, "{most} of {jobs}: {stages:?}");
            }
        }
    });
}

#[test]
fn independent_stages_are_worked_on_at_the_same_time() {
    in_time(|| {
        let barrier = std::sync::Barrier::new(4);
        let (ended, most) = work(&independent(4), 4, &Interrupt::default(), &|_, _, _| {
            barrier.wait();
            Ok(())
        });
        ended.unwrap();
        assert_eq!(most, 4);
    });
}

#[test]
fn a_stage_waits_only_at_the_step_that_takes_something() {
    in_time(|| {
        // The first stage ends when the second one has done what comes before its need of the first.
        let needy = Stage { base: None, steps: vec![Vec::new(), vec![0]] };
        let stages = [independent(1), vec![needy], independent(1)].concat();
        let done = Mutex::new(Vec::new());
        let (sender, receiver) = mpsc::channel();
        let (sender, receiver) = (Mutex::new(sender), Mutex::new(receiver));
        let (ended, _) = work(&stages, 2, &Interrupt::default(), &|_, stage, step| {
            if stage == 0 {
                // The third one has the job of the second, which waits.
                (0..2).for_each(|_| receiver.lock().unwrap().recv_timeout(PATIENCE).unwrap());
            } else {
                sender.lock().unwrap().send(()).unwrap();
            }
            done.lock().unwrap().push((stage, step));
            Ok(())
        });
        ended.unwrap();
        let done = done.into_inner().unwrap();
        assert_eq!(done.len(), 4);
        // Where the others are in the list says nothing: they tell the first one before they note that they are done.
        let at = |step| done.iter().position(|done| *done == step);
        assert!(at((0, 0)) < at((1, 1)), "{done:?}");
    });
}

#[test]
fn who_is_going_to_wait_gives_way_to_a_root_that_is_being_made() {
    for fails in [false, true] {
        in_time(move || {
            let order = Mutex::new(Vec::new());
            let both = std::sync::Barrier::new(2);
            let (ended, _) = work(&independent(2), 2, &Interrupt::default(), &|job, stage, _| {
                // Both are at work, so that there is something to give way to.
                both.wait();
                if stage == 1 {
                    job.give_way(&[0])?;
                } else {
                    std::thread::sleep(Duration::from_millis(20));
                }
                order.lock().unwrap().push(stage);
                if stage == 0 && fails {
                    return Err(failed("no root"));
                }
                job.has_root();
                // The second one has a root before the first one ends.
                if stage == 0 {
                    while order.lock().unwrap().len() < 2 {
                        std::thread::yield_now();
                    }
                }
                Ok(())
            });
            assert_eq!(ended.is_err(), fails);
            assert_eq!(*order.lock().unwrap(), if fails { vec![0] } else { vec![0, 1] });
        });
    }
}

#[test]
fn nobody_gives_way_to_who_waits_or_has_not_begun() {
    in_time(|| {
        // The first one waits until the second has ended, and the third has not begun then.
        let (ended, _) = work(&independent(3), 2, &Interrupt::default(), &|job, stage, _| match stage {
            0 => job.wait_for(&[1]),
            1 => job.give_way(&[0, 2]),
            _ => Ok(()),
        });
        ended.unwrap();
    });
}

#[test]
fn the_first_failure_ends_the_others_and_is_the_one_that_is_told() {
    in_time(|| {
        let stages = [independent(3), vec![Stage { base: None, steps: vec![vec![0]] }], independent(1)].concat();
        let interrupt = Interrupt::default();
        let begun = std::sync::Barrier::new(3);
        let (ended, _) = work(&stages, 3, &interrupt, &|_, stage, _| {
            assert!(stage < 3, "nothing begins after a failure");
            begun.wait();
            if stage == 1 {
                return Err(failed("first"));
            }
            let stopped = until_stopped(&interrupt);
            // What a command says that was ended is a failure, too.
            Err(if stage == 0 { stopped } else { failed("second") })
        });
        assert!(matches!(&ended, Err(Error::Run { text, .. }) if text == "first"), "{ended:?}");
    });
}

#[test]
fn an_interrupt_from_outside_is_what_is_told() {
    in_time(|| {
        let interrupt = Interrupt::default();
        let (ended, _) = work(&independent(3), 2, &interrupt, &|_, stage, _| {
            if stage == 1 {
                interrupt.trigger(15);
            }
            Err(until_stopped(&interrupt))
        });
        assert!(matches!(ended, Err(Error::Interrupted(15))), "{ended:?}");
    });
}

#[test]
fn where_the_cache_lacks_a_layer_the_others_finish_their_steps() {
    in_time(|| {
        let two = Stage { base: None, steps: vec![Vec::new(), Vec::new()] };
        let interrupt = Interrupt::default();
        let finished = AtomicUsize::new(0);
        let (ended, _) = work(&[two.clone(), two.clone(), two], 2, &interrupt, &|job, stage, _| {
            if stage == 0 {
                return Err(stale());
            }
            while job.check().is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
            finished.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        assert!(matches!(ended, Err(Error::Stale { .. })), "{ended:?}");
        assert!(finished.into_inner() <= 1, "no second step, and no third stage");
        assert!(interrupt.check().is_ok(), "the build goes on with another try");
    });
}

#[test]
fn a_real_failure_is_told_rather_than_a_layer_that_the_cache_lacks() {
    for first_is_stale in [true, false] {
        in_time(move || {
            let interrupt = Interrupt::default();
            let begun = std::sync::Barrier::new(2);
            let (ended, _) = work(&independent(2), 2, &interrupt, &|job, stage, _| {
                begun.wait();
                if stage == 1 {
                    while job.check().is_ok() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
                Err(if (stage == 0) == first_is_stale { stale() } else { failed("real") })
            });
            assert!(matches!(ended, Err(Error::Run { .. })), "{ended:?}");
            assert!(matches!(interrupt.check(), Err(Error::Abandoned)));
        });
    }
}

#[test]
fn a_panic_leaves_nobody_waiting() {
    in_time(|| {
        let stages = [independent(1), vec![Stage { base: None, steps: vec![vec![0]] }]].concat();
        let interrupt = Interrupt::default();
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            work(&stages, 2, &interrupt, &|_, _, _| panic!("on purpose"))
        }));
        assert!(worked.is_err());
        assert!(matches!(interrupt.check(), Err(Error::Abandoned)));
    });
}

#[test]
fn who_waits_for_somebody_elses_step_lends_the_job() {
    in_time(|| {
        let (sender, receiver) = mpsc::channel();
        let (sender, receiver) = (Mutex::new(sender), Mutex::new(receiver));
        let (ended, most) = work(&independent(2), 1, &Interrupt::default(), &|job, stage, _| {
            if stage == 1 {
                sender.lock().unwrap().send(()).unwrap();
                return Ok(());
            }
            job.lend(|| receiver.lock().unwrap().recv_timeout(PATIENCE).unwrap())
        });
        ended.unwrap();
        assert_eq!(most, 2, "both are in a step, of which one waits");
    });
}
