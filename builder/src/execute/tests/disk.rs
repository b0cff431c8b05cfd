//! What is on disk while a build goes on.

use yadokari_layers::{Digest, blob_path};

use super::*;

/// Gives layers back that were put here.
struct Elsewhere {
    directory: tempfile::TempDir,
    fetched: Mutex<Vec<Digest>>,
}

impl Elsewhere {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), fetched: Mutex::default() }
    }

    fn take(&self, work: &WorkDir, layer: &LayerRef) {
        let to = blob_path(self.directory.path(), &layer.digest);
        fs::copy(blob_path(work.blobs(), &layer.digest), to).unwrap();
        work.holders().is_elsewhere(&layer.digest);
    }
}

impl Fetch for Elsewhere {
    fn layers(&self, _image: &ImageName) -> Vec<LayerRef> {
        Vec::new()
    }

    fn fetch(&self, layers: &[LayerRef], directory: &Path, _begun: Option<Begun<'_>>) -> Result<(), crate::Error> {
        for LayerRef { digest, .. } in layers {
            fs::copy(blob_path(self.directory.path(), digest), blob_path(directory, digest)).unwrap();
            self.fetched.lock().unwrap().push(*digest);
        }
        Ok(())
    }
}

fn on_disk(work: &WorkDir) -> usize {
    fs::read_dir(work.blobs()).unwrap().count()
}

const TEXT: &str = "FROM scratch AS a\nCOPY f /f\nFROM a\nCOPY g /g\nCOPY h /h\nCOPY --from=a /f /again\nCOPY i /i\n";

fn bench() -> Bench {
    Bench::new(&[("f", "1"), ("g", "2"), ("h", "3"), ("i", "4")])
}

#[test]
fn layers_leave_the_disk_when_they_were_sent_and_nobody_copies_from_them_any_more() {
    let (bench, elsewhere, seen) = (bench(), Elsewhere::new(), Mutex::new(Vec::new()));
    let finished = |work: &WorkDir, done: Finished| {
        seen.lock().unwrap().push(on_disk(work));
        elsewhere.take(work, &done.layer.unwrap());
        Ok(())
    };
    let setting = Setting { fetch: &elsewhere, finished: &finished, ..Setting::default() };
    let built = bench.try_build_so(TEXT, &setting).unwrap();
    // The first one waits for the fourth step, each other one for nothing.
    assert_eq!(*seen.lock().unwrap(), [1, 2, 2, 1, 1]);
    assert_eq!(on_disk(&built.work), 0);
    assert_eq!(*elsewhere.fetched.lock().unwrap(), []);
    assert_eq!(built.layers, bench.build(TEXT).layers);
}

#[test]
fn layers_that_are_nowhere_else_stay() {
    let bench = bench();
    let built = bench.build(TEXT);
    assert_eq!(on_disk(&built.work), 5);
    assert_eq!(built.lines().len(), 5);
}

#[test]
fn a_layer_that_is_read_against_expectation_is_fetched_back() {
    let (bench, elsewhere) = (bench(), Elsewhere::new());
    let finished = |work: &WorkDir, done: Finished| {
        elsewhere.take(work, &done.layer.unwrap());
        work.holders().await_only([].into());
        Ok(())
    };
    let setting = Setting { fetch: &elsewhere, finished: &finished, ..Setting::default() };
    let built = bench.try_build_so(TEXT, &setting).unwrap();
    assert_eq!(*elsewhere.fetched.lock().unwrap(), [built.layers[0].digest]);
    assert_eq!(on_disk(&built.work), 0);
    assert_eq!(built.layers, bench.build(TEXT).layers);
}
