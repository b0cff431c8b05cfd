//! A store in memory.
/// placeholder
pub struct Memory;
impl Memory {
    /// x
    pub fn serve() {}
}
