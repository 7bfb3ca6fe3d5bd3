//! Loading the kernel side and putting it on sites.

mod ahead;
mod background;
mod btf;
mod cost;
mod features;
mod frames;
mod hold;
mod links;
mod load;
mod maps;
mod multi;
mod nop5;
mod perf;
mod plans;
mod programs;
mod remove;
mod session;
mod sets;
mod traced;

pub use background::{detached, is_stopping, stop_attaching};
pub use btf::{Btf, BtfError};
pub use cost::KernelCost;
pub use features::{Features, OLDEST_KERNEL};
pub use links::{Attached, Attacher, NextSet};
pub use load::{OBJECT, Options};
pub use maps::Rings;
pub use multi::{MultiProgram, MultiSite};
pub use programs::KernelProgram;
pub use session::{OpenFrame, Scope, Session};
