//! Decoders of foreign bytes, as functions of bytes. The fuzzer feeds them with inputs that it makes up, and the stable tests with
//! those that are kept in the corpora: both include these files.

use peak_alloc::PeakAlloc;

/// Counts what the bodies take.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// One decoder, and what stands behind it.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// Names its corpus.
    pub(crate) name: &'static str,
    /// Panics where something is wrong with the decoder; tells whether the bytes meant anything.
    pub(crate) run: fn(&[u8]) -> bool,
    /// Memory that it may take for any input.
    pub(crate) fixed_bytes: usize,
    /// Memory that it may take for each byte of the input: what a message claims of itself must cost nothing.
    pub(crate) factor: usize,
    /// Inputs to begin with, each of which means something.
    #[allow(dead_code, reason = "for the tests")]
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
}

impl Target {
    /// Decodes, and looks at the memory that it took.
    pub(crate) fn feed(&self, bytes: &[u8]) -> bool {
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let understood = (self.run)(bytes);
        let taken = MEMORY.peak_usage().saturating_sub(before);
        let allowed = self.fixed_bytes + self.factor * bytes.len();
        let name = self.name;
        assert!(
            taken <= allowed,
            "{name}: {taken} bytes of memory for {} bytes of input; {allowed} are allowed",
            bytes.len()
        );
        understood
    }
}

/// The target of that name.
///
/// # Panics
/// When there is none.
#[allow(dead_code, reason = "for the fuzzer")]
pub(crate) fn target(targets: &[Target], name: &str) -> Target {
    let named = targets.iter().find(|target| target.name == name);
    *named.unwrap_or_else(|| panic!("no target {name:?}"))
}
