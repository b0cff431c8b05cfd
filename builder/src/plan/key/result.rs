//! The keys of what is stored: layers, and whole images.

use yadokari_layers::{Compression, Key, KeyHasher, pack};
use yadokari_registry::Platform;

use crate::image::Form;
use crate::plan::{Base, ImageName, LayerRef, Plan};

/// What a layer of the key `key` is stored under: how it is written changes its bytes, too.
pub fn record_key(key: &Key, pack: &pack::Options) -> Key {
    let mut record = KeyHasher::new("record");
    record.digest(&key.digest());
    options(&mut record, pack);
    record.finish()
}

/// The key of the target's image: what all its bytes depend on, save the clock. `base_layers` knows the layers of images.
pub fn result_key(plan: &Plan, base_layers: &dyn Fn(&ImageName) -> Vec<LayerRef>, pack: &pack::Options) -> Key {
    let mut key = KeyHasher::new("result");
    let target = plan.target();
    key.bytes(target.config.to_bytes());
    key.number(target.history.len() as u64);
    for line in &target.history {
        key.bytes(&line.created_by).number(u64::from(line.step.is_some()));
    }
    let chain = plan.target_chain();
    let lowest = chain.last().map(|&position| &plan.stages[position].base);
    let layers = match lowest {
        Some(Base::Image(name)) => base_layers(name),
        _ => Vec::new(),
    };
    key.number(layers.len() as u64);
    for layer in &layers {
        key.digest(&layer.digest).digest(&layer.diff_id).number(layer.size).bytes(name(layer.compression));
    }
    for &position in chain.iter().rev() {
        key.list(plan.stages[position].steps.iter().map(|step| *step.key.digest().as_bytes()));
    }
    options(&mut key, pack);
    key.option(plan.epoch.map(i64::to_le_bytes));
    key.finish()
}

/// The key of the same image with all layers on top of its base as one.
pub fn squashed_result_key(result: &Key) -> Key {
    let mut key = KeyHasher::new("squashed result");
    key.digest(&result.digest());
    key.finish()
}

/// The key of the same image whose manifests are written in another form than the usual one.
pub fn formed_result_key(result: &Key, form: &Form) -> Key {
    let mut key = KeyHasher::new("formed result");
    let Form { format, annotations, index_annotations } = form;
    key.digest(&result.digest()).bytes(format.name());
    for annotations in [annotations, index_annotations] {
        key.number(annotations.len() as u64);
        annotations.iter().for_each(|(name, value)| _ = key.bytes(name).bytes(value));
    }
    key.finish()
}

/// The key of the layer that the layers `above` make together on those `below`.
pub fn squash_key(below: &[LayerRef], above: &[LayerRef]) -> Key {
    let mut key = KeyHasher::new("squash");
    for layers in [below, above] {
        key.list(layers.iter().map(|layer| layer.diff_id.as_bytes()));
    }
    key.finish()
}

/// The key of an index of images, from those of the images in its order.
pub fn result_key_of_index(images: &[(Platform, Key)]) -> Key {
    let mut key = KeyHasher::new("result index");
    key.number(images.len() as u64);
    for (platform, image) in images {
        key.bytes(platform.to_string()).digest(&image.digest());
    }
    key.finish()
}

fn options(key: &mut KeyHasher, options: &pack::Options) {
    let pack::Options { compression, level, clamp } = options;
    key.bytes(name(*compression)).option(level.map(i32::to_le_bytes)).option(clamp.map(i64::to_le_bytes));
}

fn name(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    }
}
