//! What the user is told while the agent runs, on standard error.

/// Tells the user things, unless asked to be quiet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Notes {
    /// Say nothing.
    pub quiet: bool,
}

impl Notes {
    /// Says something. What comes from outside must have been made safe to show.
    pub fn say(self, text: &str) {
        if !self.quiet {
            eprintln!("teracron-agent: {text}");
        }
    }
}
