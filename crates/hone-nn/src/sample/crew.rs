//! Several threads on one matrix product, for when there is only one sequence to decode.

use pulp::Arch;

use super::packed::Packed;

/// The threads that share the products of a step.
#[derive(Debug, Default)]
pub(super) struct Crew {}

impl Crew {
    /// [`Packed::apply`] over all panels.
    pub fn apply(&self, packed: &Packed, arch: Arch, x: &[f32], y: &mut [f32], add: bool) {
        packed.apply(arch, x, 0..packed.panels(), y, add);
    }
}
