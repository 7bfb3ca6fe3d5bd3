//! Loading the kernel side and putting it on sites.

mod ahead;
mod background;
mod btf;
mod features;
mod frames;
mod links;
mod multi;
mod nop5;
mod plans;
mod remove;
mod session;
mod sets;
mod traced;

pub use background::detached;
pub use btf::{Btf, BtfError};
pub use features::{Features, OLDEST_KERNEL, kernel_version};
pub use links::{Attached, Attacher, detach};
pub use multi::{MultiProgram, MultiSite};
pub use session::{KernelCost, OBJECT, OpenFrame, Options, Scope, Session};
