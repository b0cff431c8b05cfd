//! What the names of FROM, `--from` and mounts mean: stages, named contexts, images.

use yadokari_layers::Key;
use yadokari_registry::Platform;

use super::copy::context_inputs;
use super::key::Sources;
use super::lower::Lowering;
use super::op::{Copy, CopySource, Op, Origin};
use super::stage::{From, NOTHING, Planner};
use super::{Base, BaseImage, ContextMode, ImageName, key};
use crate::context::ignore::Ignore;
use crate::context::{Context, Named};
use crate::dockerfile::{self, Diagnostic, Span, closest, expand};
use crate::image::ImageConfig;

impl<'a> Planner<'a> {
    /// The base's name, with its variables replaced.
    pub(super) fn base_name(&self, from: &dockerfile::From) -> Result<String, crate::Error> {
        let name = expand(&from.image, self.file.escape, self.globals.values())?;
        if name.is_empty() {
            let error = Diagnostic::new("the base name is empty once its variables are replaced").at(from.image.span);
            return Err(error.help("give the ARG a default value before the first FROM, or pass --build-arg").into());
        }
        Ok(name)
    }

    /// The stage that stage `number` starts from, if it starts from one. Only `--from` takes numbers.
    pub(super) fn stage_below(&self, number: usize) -> Result<Option<usize>, crate::Error> {
        let from = &self.file.stages[number].from;
        let name = self.base_name(from)?;
        Ok(if self.stand_in(number).is_some() { None } else { self.find_name(&name, number) })
    }

    /// The named context that stands in for stage `number`. Its instructions are then not looked at.
    pub(super) fn stand_in(&self, number: usize) -> Option<(&'a str, &'a Named)> {
        self.contexts.named(self.file.stages[number].from.name.as_deref()?)
    }

    /// The stage before stage `before` of that name, the later of two alike.
    pub(super) fn find_name(&self, name: &str, before: usize) -> Option<usize> {
        let stages = &self.file.stages[..before];
        stages
            .iter()
            .rposition(|stage| stage.from.name.as_deref().is_some_and(|other| other.eq_ignore_ascii_case(name)))
    }

    /// What `--from` or a mount's `from` in stage `number` means, with the key that stands for it; `None` where
    /// something must be fetched first. A directory has no key: what is taken from it decides. Nothing has none either.
    pub(super) fn origin(
        &mut self,
        from: From<'_>,
        number: usize,
    ) -> Result<Option<(Origin, Option<Key>)>, crate::Error> {
        if let Some(stage) = self.earlier(from, number)? {
            let Some(position) = self.stage(stage)? else { return Ok(None) };
            return Ok(Some((Origin::Stage(position), Some(self.key_of(position)))));
        }
        let platform = self.options.platform.clone();
        let name = match self.contexts.named(from.name()) {
            Some((name, Named::Directory(_))) => return Ok(Some((Origin::Named(name.to_owned()), None))),
            Some((_, Named::Nothing)) => NOTHING,
            Some((_, Named::Image(name))) => name,
            None => from.name(),
        };
        if name == NOTHING {
            return Ok(Some((Origin::Nothing, None)));
        }
        let Some(image) = self.image(name, &platform, from.span())? else { return Ok(None) };
        let key = key::image(&platform, &image.layers);
        Ok(Some((Origin::Image(ImageName { name: name.to_owned(), platform }), Some(key))))
    }

    /// The directory that `origin` is, if it is one.
    pub(super) fn directory(&self, origin: &Origin) -> Option<&'a Context> {
        match origin {
            Origin::Context => Some(self.context),
            Origin::Named(name) => self.contexts.directory(name),
            Origin::Stage(_) | Origin::Image(_) | Origin::Nothing => None,
        }
    }

    /// The image `name`, or `None` and a need.
    pub(super) fn image(
        &mut self,
        name: &str,
        platform: &Platform,
        span: Span,
    ) -> Result<Option<&'a BaseImage>, crate::Error> {
        if name.is_empty() {
            return Err(Diagnostic::new("the name of the image is empty").at(span).into());
        }
        let name = ImageName { name: name.to_owned(), platform: platform.clone() };
        let image = self.known.images.get(&name);
        if image.is_none() {
            let place = self.needs.images.entry(name).or_default();
            *place = place.or((!self.in_trigger).then_some(span));
        }
        Ok(image)
    }

    /// What stage `number` starts from, when that is no stage.
    pub(super) fn start_from_outside(&mut self, number: usize) -> Result<Option<(Base, Lowering)>, crate::Error> {
        let from = &self.file.stages[number].from;
        let platform = self.platform(number)?;
        let name = self.base_name(from)?;
        let context = match self.stand_in(number) {
            None if name == NOTHING => None,
            None => self.contexts.named(&name),
            stand_in => stand_in,
        };
        let name = match context {
            Some((name, Named::Directory(directory))) => {
                let mut lowering = Lowering::new(self.empty_config(&platform), key::scratch(&platform));
                lowering.files_of(name, directory, from, self.options.context_mode)?;
                return Ok(Some((Base::Scratch, lowering)));
            }
            Some((_, Named::Nothing)) => NOTHING,
            Some((_, Named::Image(name))) => name,
            None => &name,
        };
        if name == NOTHING {
            let lowering = Lowering::new(self.empty_config(&platform), key::scratch(&platform));
            return Ok(Some((Base::Scratch, lowering)));
        }
        let Some(image) = self.image(name, &platform, from.image.span)? else { return Ok(None) };
        self.check_base(from, name, &platform, &image.config);
        let lowering = Lowering::new(image.config.clone(), key::image(&platform, &image.layers));
        Ok(Some((Base::Image(ImageName { name: name.to_owned(), platform }), lowering)))
    }

    fn empty_config(&self, platform: &Platform) -> ImageConfig {
        ImageConfig {
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os: platform.os.clone(),
            config: crate::image::ContainerConfig { working_dir: "/".into(), ..Default::default() },
            ..ImageConfig::default()
        }
    }

    /// The stage that `--target` names, or the last one.
    pub(super) fn target(&self) -> Result<usize, crate::Error> {
        let Some(target) = &self.options.target else { return Ok(self.file.stages.len() - 1) };
        self.find(target, self.file.stages.len()).ok_or_else(|| {
            let names: Vec<&str> = self.file.stages.iter().filter_map(|stage| stage.from.name.as_deref()).collect();
            let hint = match closest(target, names.iter().copied()) {
                Some(name) => format!("; did you mean {name}?"),
                None if names.is_empty() => String::new(),
                None => format!("; it has {}", names.join(", ")),
            };
            crate::Error::NoSuchTarget { target: target.clone(), hint }
        })
    }
}

/// Images that many names are meant to be, when they are mistyped.
const COMMON: [&str; 7] = ["alpine", "busybox", "centos", "debian", "fedora", "golang", "ubuntu"];

/// The stage, or else the common image, that an image that cannot be had was probably meant to be.
pub fn meant(file: &dockerfile::Dockerfile, name: &str) -> Option<String> {
    let stages = file.stages.iter().filter_map(|stage| stage.from.name.as_deref());
    let candidates: Vec<&str> = stages.chain(COMMON).collect();
    // A name that is one of them was not mistyped.
    let (repository, _) = name.split_once(':').unwrap_or((name, ""));
    let is_known = candidates.iter().any(|candidate| candidate.eq_ignore_ascii_case(repository));
    closest(repository, candidates).filter(|_| !is_known).map(str::to_owned)
}

impl Lowering {
    /// All files of a directory, as the first step of the stage that starts from it.
    fn files_of(
        &mut self,
        name: &str,
        directory: &Context,
        from: &dockerfile::From,
        mode: ContextMode,
    ) -> Result<(), crate::Error> {
        let span = from.image.span;
        let copy = Copy {
            from: Origin::Named(name.to_owned()),
            sources: vec![CopySource { pattern: "/".into(), span, elsewhere: None }],
            inline: Vec::new(),
            destination: "/".into(),
            destination_span: span,
            chown: None,
            chmod: None,
            unpack: false,
            unpack_downloads: false,
            parents: false,
            exclude: Ignore::default(),
            link: false,
        };
        let parts = key::copy(&copy, &Sources::Context(context_inputs(directory, &copy)?), mode);
        self.push(Op::Copy(copy), parts, format!("FROM {name}"), from.text.trim().to_owned(), Some(from.span));
        Ok(())
    }
}
