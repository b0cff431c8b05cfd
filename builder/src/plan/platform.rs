//! Which machine a stage is for, and whether this one can execute its commands.

use yadokari_registry::Platform;

use super::stage::Planner;
use crate::dockerfile::{Diagnostic, From, Instruction, InstructionKind, Span, expand};
use crate::image::ImageConfig;

impl Planner<'_> {
    /// The platform of stage `number`: that of the stage below it, else what its FROM asks for, else the build's.
    pub(super) fn platform(&mut self, number: usize) -> Result<Platform, crate::Error> {
        let (mut above, mut stage) = (Vec::new(), number);
        let platform = loop {
            if let Some(known) = self.platforms.get(&stage) {
                break known.clone();
            }
            above.push(stage);
            if let Some(below) = self.stage_below(stage)? {
                stage = below;
                continue;
            }
            let from = &self.file.stages[stage].from;
            let platform = self.asked_platform(from)?.unwrap_or_else(|| self.options.platform.clone());
            if platform.os == "windows" {
                let span = from.platform.as_ref().map_or(from.span, |word| word.span);
                return Err(Diagnostic::not_carried_out(format!("an image for {platform}"), span).into());
            }
            break platform;
        };
        self.platforms.extend(above.into_iter().map(|stage| (stage, platform.clone())));
        Ok(platform)
    }

    /// The value of `FROM --platform`.
    pub(super) fn asked_platform(&self, from: &From) -> Result<Option<Platform>, crate::Error> {
        let Some(word) = &from.platform else { return Ok(None) };
        let text = expand(word, self.file.escape, self.globals.values())?;
        if text.is_empty() {
            let error = Diagnostic::new("the platform is empty once its variables are replaced").at(word.span);
            return Err(error.help("an ARG that a FROM uses stands before the first FROM").into());
        }
        let wrong = |error: yadokari_registry::Error| Diagnostic::new(error.to_string()).at(word.span);
        Ok(Some(text.parse().map_err(wrong)?))
    }

    /// Warns where a FROM asks for a platform and cannot have it: the stage that it starts from is for another.
    pub(super) fn check_asked_platform(&mut self, from: &From, below: &Platform) -> Result<(), crate::Error> {
        if let (Some(asked), Some(word)) = (self.asked_platform(from)?, &from.platform)
            && asked != *below
        {
            let message =
                format!("--platform={asked} has no effect: the stage that this one starts from is for {below}");
            self.warn(Diagnostic::warning(message), word.span, false);
        }
        Ok(())
    }

    /// Checks that the commands of stage `number` can be executed here: before anything is asked for, since no image
    /// would change the answer.
    pub(super) fn check_commands(&mut self, instructions: &[Instruction], number: usize) -> Result<(), crate::Error> {
        let run = instructions.iter().find(|instruction| matches!(instruction.kind, InstructionKind::Run(_)));
        run.map_or(Ok(()), |run| self.check_command(run.span, number))
    }

    fn check_command(&mut self, span: Span, number: usize) -> Result<(), crate::Error> {
        let (platform, host) = (self.platform(number)?, &self.options.host);
        if platform.is_same_machine(host) {
            return Ok(());
        }
        match self.known.executes.get(&platform) {
            Some(true) => Ok(()),
            Some(false) => {
                let help = format!(
                    "on the host, install qemu-user-static, or run `docker run --privileged --rm tonistiigi/binfmt \
                     --install {}`; or write FROM --platform=$BUILDPLATFORM and compile for $TARGETPLATFORM",
                    platform.architecture
                );
                let error = Diagnostic::new(format!("a RUN for {platform} cannot be executed on this {host} machine"));
                Err(error.at(span).label("binfmt_misc has no handler for its programs").help(help).into())
            }
            None => {
                self.needs.platforms.insert(platform);
                Ok(())
            }
        }
    }

    /// Says in the result's config what platform it is for: the one that the user gave, else the base's own words.
    pub(super) fn settle_platform(&self, config: &mut ImageConfig, of_stage: &Platform) {
        let asked = if self.options.platform_is_given { &self.options.platform } else { of_stage };
        let is_same = config.os == asked.os && config.architecture == asked.architecture;
        let says_nothing = config.os.is_empty() || config.architecture.is_empty();
        if (self.options.platform_is_given || says_nothing) && !is_same {
            config.extra.remove("os.version");
            (config.os, config.architecture) = (asked.os.clone(), asked.architecture.clone());
            config.variant.clone_from(&asked.variant);
        } else if self.options.platform_is_given && asked.variant.is_some() {
            config.variant.clone_from(&asked.variant);
        }
        let normal = Platform::normal(&config.os, &config.architecture, config.variant.as_deref());
        (config.os, config.architecture, config.variant) = (normal.os, normal.architecture, normal.variant);
    }
}
