//! Several stages at once.

use std::collections::HashMap;
use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use yadokari_layers::{BlobWriter, Digest, blob_path};

use super::super::earlier::Claimed;
use super::*;
use crate::image::ImageConfig;

/// How long what must happen may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Something that happens once, and may be waited for.
#[derive(Default)]
struct Event(Mutex<bool>, Condvar);

impl Event {
    fn happens(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    /// Whether it happened in time.
    fn is_awaited(&self) -> bool {
        let waited = self.1.wait_timeout_while(self.0.lock().unwrap(), PATIENCE, |happened| !*happened).unwrap();
        !waited.1.timed_out()
    }
}

/// An image of one layer, which is brought once an event has happened.
struct Image<'e> {
    layer: LayerRef,
    at: tempfile::TempDir,
    event: &'e Event,
    brought: AtomicUsize,
    read: AtomicUsize,
}

impl<'e> Image<'e> {
    fn new(event: &'e Event) -> Self {
        let at = tempfile::tempdir().unwrap();
        let mut archive = ::tar::Builder::new(Vec::new());
        let mut header = ::tar::Header::new_ustar();
        header.set_size(4);
        header.set_mode(0o644);
        archive.append_data(&mut header, "x", &b"base"[..]).unwrap();
        let mut writer = BlobWriter::create(at.path(), Compression::None, None).unwrap();
        writer.write_all(&archive.into_inner().unwrap()).unwrap();
        let blob = writer.finish().unwrap();
        let layer =
            LayerRef { digest: blob.digest, size: blob.size, compression: Compression::None, diff_id: blob.diff_id };
        Self { layer, at, event, brought: AtomicUsize::new(0), read: AtomicUsize::new(0) }
    }

    fn base(&self) -> BaseImage {
        BaseImage { manifest: Digest::of("image"), config: ImageConfig::default(), layers: vec![self.layer] }
    }
}

impl Fetch for Image<'_> {
    fn layers(&self, _image: &ImageName) -> Vec<LayerRef> {
        vec![self.layer]
    }

    fn indexes(&self, _layers: &[LayerRef]) -> HashMap<Digest, Arc<yadokari_layers::Index>> {
        HashMap::new()
    }

    fn indexed(&self, _layer: &LayerRef, _index: &Arc<yadokari_layers::Index>) {
        self.read.fetch_add(1, Ordering::SeqCst);
    }

    fn fetch(&self, layers: &[LayerRef], directory: &Path, _begun: Option<Begun<'_>>) -> Result<(), crate::Error> {
        for layer in layers.iter().filter(|layer| layer.digest == self.layer.digest) {
            assert!(self.event.is_awaited(), "nobody else went on");
            self.brought.fetch_add(1, Ordering::SeqCst);
            fs::copy(blob_path(self.at.path(), &layer.digest), blob_path(directory, &layer.digest)).unwrap();
        }
        Ok(())
    }
}

/// Stages that share bases and steps and take files from each other, and a target that takes from all.
fn many(count: usize) -> String {
    let mut text = "FROM scratch AS s0\nWORKDIR /w\nCOPY d /w/d\n".to_owned();
    for n in 1..count {
        let (base, other) = (["scratch".to_owned(), format!("s{}", n / 2)][n % 2].clone(), (n * 7) % n);
        text +=
            &format!("FROM {base} AS s{n}\nCOPY d /common\nCOPY --from=s{other} / /from{other}\nWORKDIR /made{n}\n");
    }
    text += "FROM s0\n";
    (0..count).for_each(|n| text += &format!("COPY --from=s{n} / /all/{n}/\n"));
    text
}

#[test]
fn the_layers_do_not_depend_on_the_number_of_jobs() {
    let bench = Bench::new(&[("d/a", "1"), ("d/b/c", "2")]);
    let text = many(12);
    let layers = |jobs| bench.try_build_so(&text, &Setting { jobs, ..Setting::default() }).unwrap().layers;
    let expected = layers(1);
    assert_eq!(expected.len(), 14);
    for jobs in [2, 3, 8, 64] {
        assert_eq!(layers(jobs), expected, "{jobs} jobs");
    }
}

#[test]
fn a_stage_is_worked_on_until_it_needs_what_is_not_there() {
    let bench = Bench::new(&[("f", "1"), ("g", "2")]);
    // The layer of the other stage comes only when the target's first step is done.
    let event = Event::default();
    let image = Image::new(&event);
    let finished = |_: &WorkDir, _| {
        event.happens();
        Ok(())
    };
    let text = "FROM image AS slow\nWORKDIR /w\nFROM scratch\nCOPY f /f\nCOPY --from=slow /x /x\n";
    let setting =
        Setting { jobs: 2, image: Some(image.base()), fetch: &image, finished: &finished, ..Setting::default() };
    let built = bench.try_build_so(text, &setting).unwrap();
    assert_eq!(built.layers.len(), 2);
}

#[test]
fn stages_that_need_the_same_layer_read_it_once() {
    let bench = Bench::new(&[]);
    let event = Event::default();
    event.happens();
    let image = Image::new(&event);
    let mut text = String::new();
    (0..6).for_each(|n| text += &format!("FROM image AS s{n}\nWORKDIR /w{n}\n"));
    text += "FROM scratch\n";
    (0..6).for_each(|n| text += &format!("COPY --from=s{n} /x /x{n}\n"));
    let setting = Setting { jobs: 6, image: Some(image.base()), fetch: &image, ..Setting::default() };
    bench.try_build_so(&text, &setting).unwrap();
    assert_eq!(image.read.into_inner(), 1);
}

#[test]
fn an_error_of_one_stage_is_told_with_any_number_of_jobs() {
    let bench = Bench::new(&[("d/a", "1")]);
    let text = many(8).replace("COPY --from=s7 / /all/7/", "COPY --from=s7 /none /all/7/");
    for jobs in [1, 4] {
        let error = bench.try_build_so(&text, &Setting { jobs, ..Setting::default() }).err().unwrap();
        assert!(error.contains("'/none' does not exist in what is copied from"), "{error}");
    }
}

#[test]
fn a_step_that_is_under_way_elsewhere_is_waited_for() {
    let pack = pack::Options::default();
    let bench = Bench::new(&[("f", "1")]);
    let (_, plan) = bench.plan(&Source::new("Dockerfile", "FROM scratch\nCOPY f /f\n"), None).unwrap();
    let (step, done) = (&plan.stages[0].steps[0], Done::default());
    let Claimed::Here(claim) = done.claim(step, &pack) else { panic!("nobody else asked") };
    assert!(matches!(done.claim(step, &pack), Claimed::Elsewhere));
    assert!(done.find(step, &pack).is_none());
    drop(claim);
    let Claimed::Here(claim) = done.claim(step, &pack) else { panic!("it was given up") };
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            done.wait(step, &pack);
            matches!(done.claim(step, &pack), Claimed::Made(_))
        });
        std::thread::sleep(Duration::from_millis(20));
        assert!(!waiting.is_finished());
        claim.remember(Default::default());
        assert!(waiting.join().unwrap());
    });
    assert!(done.find(step, &pack).is_some());
}
