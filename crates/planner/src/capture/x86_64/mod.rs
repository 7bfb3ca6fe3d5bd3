//! What captures know of x86-64: its registers and its calling conventions. Another architecture is a folder beside
//! this one with the same face; what lies around them knows registers by DWARF number only.

pub(super) mod abi;
pub(super) mod registers;
