//! From text to typed instructions.

use super::{Diagnostic, Dockerfile, Instruction, Source};

/// Reads a Dockerfile.
pub fn parse(_source: &Source) -> Result<Dockerfile, Diagnostic> {
    Err(Diagnostic::new("a Dockerfile cannot be read yet"))
}

/// Reads one instruction: an ONBUILD trigger that a base image carries.
pub fn parse_instruction(_source: &Source) -> Result<Instruction, Diagnostic> {
    Err(Diagnostic::new("a trigger cannot be read yet"))
}
