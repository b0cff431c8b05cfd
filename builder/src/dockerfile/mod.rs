//! The Dockerfile language: bytes come in, typed instructions with spans go out.
//!
//! ```text
//! bytes ─Source::from_bytes→ Source ─parse→ Dockerfile { global_args, stages { from, instructions } }
//! Word + Variables ─expand→ String
//! ```
//!
//! - [`parse`] reads a whole file. It knows directives, comments, continuations, here-documents, flags, JSON forms and
//!   the arguments of every instruction. It expands nothing: what may hold variables stays a [`Word`], the text as
//!   written with its place in the file.
//! - [`expand`] and its kin turn a [`Word`] into a value, once the planner knows the variables at that place.
//! - [`MountFlag::read`] does the same for `RUN --mount`.
//! - [`Rule`] names the build checks. Those that the text alone decides are made here, the others by the planner.
//! - The checkers ([`parse_expose`], [`parse_duration`], [`validate_stop_signal`]) read values that are complete only
//!   after expansion.
//!
//! Every failure is a [`Diagnostic`], which renders with file, line and caret. What the language has and the builder
//! does not carry out yet is a failure too, and names itself; nothing is ignored.
//!
//! Deliberately absent: files, registries, the environment. `# syntax=` names a front-end image; it is accepted and has
//! no effect, because the language is compiled in.

mod arguments;
#[cfg(test)]
mod carets;
mod checks;
mod command;
mod copy;
mod diagnostic;
mod directive;
mod expand;
mod flags;
mod heredoc;
mod instruction;
mod lines;
mod lint;
mod mount;
mod parse;
mod pattern;
mod source;
mod substitute;
mod suggest;
mod text;
mod values;

pub(crate) use diagnostic::printable;
pub use diagnostic::{Diagnostic, Level};
pub use expand::{Variables, expand, expand_heredoc, expand_words};
pub use instruction::{
    Add, ArgDecl, ArgInstruction, CommandLine, Copy, Dockerfile, From, Healthcheck, Heredoc, Instruction,
    InstructionKind, NetworkMode, Onbuild, Pair, Run, Script, Stage, Transfer,
};
pub use lint::{Check, Checks, Policy, Rule};
pub use mount::{MountFlag, MountOptions, MountSharing, MountType};
pub use parse::{parse, parse_instruction, parse_partly};
pub use source::{Source, Span, Word};
pub(crate) use suggest::closest;
pub use values::{parse_duration, parse_expose, validate_stop_signal};
