//! What the kernel side and the user side of the agent agree on: the records in the ring buffer,
//! the state in the maps, and the 64-bit cookie that each probe site carries.
//!
//! Everything here is plain data of fixed layout (`repr(C)`, no padding that is left unset), so
//! that one side can write the bytes and the other read them.
#![no_std]

pub mod config;
pub mod control;
pub mod cookie;
pub mod counters;
pub mod future;
pub mod ids;
pub mod layout;
pub mod plan;
pub mod record;
pub mod sampling;
pub mod thread;
pub mod x86_64;

pub use config::KernelConfig;
pub use control::{Age, Control};
pub use cookie::{CfaBase, EnterCookie, ExitCookie, RaiseKind, RecoverCookie};
pub use counters::{Counter, Counters};
pub use future::{FutureKey, FutureRecord, FutureSite, FutureState};
pub use ids::{FutureId, PlanId, ProbeId, SiteId};
pub use layout::{Layout, Placed};
pub use plan::Plan;
pub use record::{
    CaptureRecord, CaptureState, DyingRecord, End, FailureText, MESSAGE_BYTES, ProcessEvent,
    ProcessRecord, RecordKind, SpanRecord, TEXT_BYTES, TYPE_NAME_BYTES,
};
pub use sampling::{Ahead, Sampling};
pub use thread::{FiberKey, Frame, MAX_FRAMES, Origin, Spawned, StackClass, ThreadState, Walk};
