//! Loading the kernel side and putting it on sites.

mod ahead;
mod background;
mod btf;
mod features;
mod frames;
mod hold;
mod links;
mod multi;
mod nop5;
mod perf;
mod plans;
mod remove;
mod session;
mod sets;
mod traced;

pub use background::{detached, is_stopping, stop_attaching};
pub use btf::{Btf, BtfError};
pub use features::{Features, OLDEST_KERNEL, kernel_version};
pub use links::{Attached, Attacher, NextSet};
pub use multi::{MultiProgram, MultiSite};
pub use session::{KernelCost, OBJECT, OpenFrame, Options, Scope, Session};
